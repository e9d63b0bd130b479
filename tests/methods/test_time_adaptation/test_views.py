"""Views of images: in range, repeatable, and each operation against Pillow or an identity."""

import importlib
from pathlib import Path

import alone
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image, ImageOps
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as V

from fisherexp.data import augment
from fisherexp.data.colored import ColoredMNIST
from fisherexp.data.digits import Digits
from fisherexp.data.rotated_mnist import RotatedMNIST
from fisherexp.data.torchvision_sets import CIFAR10, MNIST, FashionMNIST
from fisherexp.methods.test_time_adaptation import augmix as mix
from fisherexp.methods.test_time_adaptation import pillow_affine
from fisherexp.methods.test_time_adaptation.augmix import augmix
from fisherexp.methods.test_time_adaptation.views import intensities, jittered, moved

METHODS = Path(__file__).parents[3] / "conf" / "method"
IMAGES = torch.randint(0, 256, (6, 3, 12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
ONE = torch.ones(6)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def pillow(operate, images: torch.Tensor) -> torch.Tensor:
    arrays = [np.asarray(operate(Image.fromarray(image.permute(1, 2, 0).numpy()))) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("blur", [True, False])
def test_jittered_views(channels, blur):
    images = IMAGES[:, :channels]
    view = jittered(images, seeded(), blur)
    assert view.shape == images.shape
    assert (view >= 0).all()
    assert (view <= 1).all()
    assert torch.equal(view, jittered(images, seeded(), blur))
    assert not torch.allclose(view, intensities(images), atol=0.05)


def test_moving_nowhere_and_by_whole_pixels_and_quarter_turns():
    images = intensities(IMAGES)
    torch.testing.assert_close(moved(images, 0.0, 1.0, [0.0, 0.0], "border"), images)
    shifted = moved(images, 0.0, 1.0, [2 / 10, 0.0], "border")
    torch.testing.assert_close(shifted[..., :-2], images[..., 2:])
    turned = moved(images[..., :10, :], 90.0, 1.0, [0.0, 0.0], "border")
    torch.testing.assert_close(turned, images[..., :10, :].rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("outside", "padding", "same"),
    [("border", "edge", True), ("reflection", "reflect", True), ("reflection", "symmetric", False)],
)
@pytest.mark.parametrize(
    ("degrees", "scale", "pixels"), [(15.0, 0.9, (0, 0)), (-9.0, 1.1, (0, 0)), (0.0, 1.0, (2, -1))]
)
def test_what_is_seen_outside_is_the_official_padding(outside, padding, same, degrees, scale, pixels):
    """Theirs: pad by half a side, turn, cut back; `symmetric` repeats the outermost pixel where it mirrors."""
    images = IMAGES.double()[..., :10] / 255
    padded = V.pad(images, [5, 6], padding_mode=padding)
    turned = V.affine(padded, degrees, list(pixels), scale, [0.0, 0.0], V.InterpolationMode.BILINEAR)
    shift = [-pixels[0] / 10, -pixels[1] / 12]
    found = moved(images, -degrees, scale, shift, outside)
    assert torch.allclose(found, V.center_crop(turned, [12, 10]), rtol=0, atol=1e-4) == same


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mix.autocontrast, ImageOps.autocontrast),
        (mix.equalize, ImageOps.equalize),
        (mix.posterize, lambda image: ImageOps.posterize(image, 4)),
        (mix.solarize, lambda image: ImageOps.solarize(image, 256 - 25)),
    ],
)
@pytest.mark.parametrize("span", [1, 3])
def test_operations_on_values_are_pillows(ours, theirs, span):
    images = IMAGES // span
    images[0] = 7  # nothing to stretch
    found, expected = ours(images.float(), ONE, ONE), pillow(theirs, images)
    # Pillow's table of autocontrast rounds in single precision.
    assert (found - expected).abs().max() <= (1 if ours is mix.autocontrast else 0)


def test_operations_on_places_are_pillows():
    images, none = IMAGES.float(), torch.zeros(6)
    gray = (128, 128, 128)
    for sign in (1.0, -1.0):
        signs = sign * ONE
        translated = pillow(lambda i, s=int(sign): i.transform(i.size, Image.AFFINE, (1, 0, s, 0, 1, 0), fillcolor=gray), IMAGES)  # fmt: skip  # noqa: E501
        assert torch.equal(mix.translate_x(images, 3 * ONE, signs), translated)  # ⌊3 · 10 / 30⌋ = 1 pixel
        down = pillow(lambda i, s=int(sign): i.transform(i.size, Image.AFFINE, (1, 0, 0, 0, 1, s), fillcolor=gray), IMAGES)  # fmt: skip  # noqa: E501
        assert torch.equal(mix.translate_y(images, 3 * ONE, signs), down)
    for operate in (mix.rotate, mix.shear_x, mix.shear_y):
        assert torch.equal(operate(images, none, ONE), images)
        assert not torch.equal(operate(images, ONE, ONE), images)


def transformed(numbers):
    """MEMO's code word for word in what it asks of Pillow: the number 128 as fill color."""
    return lambda i: i.transform(i.size, Image.AFFINE, numbers, resample=Image.BILINEAR, fillcolor=128)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("rotate", lambda s: lambda i: i.rotate(s * 2, resample=Image.BILINEAR, fillcolor=128)),
        ("shear_x", lambda s: transformed((1, s * 0.0279, 0, 0, 1, 0))),
        ("shear_y", lambda s: transformed((1, 0, 0, s * 0.0279, 1, 0))),
        ("translate_x", lambda s: transformed((1, 0, s, 0, 1, 0))),
        ("translate_y", lambda s: transformed((1, 0, 0, 0, 1, s))),
    ],
)
def test_maps_by_pillow_are_those_of_the_official_code(name, theirs, sign, mode):
    images = (IMAGES if mode == "RGB" else IMAGES[:, :1])[:2]
    pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in images]
    expected = np.stack([np.atleast_3d(np.asarray(theirs(int(sign))(picture))) for picture in pictures])
    expected = torch.from_numpy(expected).permute(0, 3, 1, 2).float()
    strength = torch.full((2,), 3.0 if name.startswith("translate") else 0.93)
    found, rounded = (
        getattr(room, name)(images.float(), strength, sign * torch.ones(2)) for room in (pillow_affine, mix)
    )
    assert torch.equal(found, expected)
    assert torch.equal(rounded, expected) == (mode == "L" and name.startswith("translate"))


def test_parts_are_resized_as_the_official_code_does_for_imagenet():
    """torchvision's transform on Pillow's images, which rounds in another place, from the same random numbers."""
    found = mix.resized_crops(IMAGES, seeded())
    torch.manual_seed(int(torch.randint(2**31, (), generator=seeded())))
    transform = RandomResizedCrop((12, 10))
    expected = pillow(transform, IMAGES)
    assert (found.float() - expected).abs().max() <= 1
    one, other = (augmix(IMAGES, 2, seeded(), crop=crop) for crop in ("resized", "padded"))
    assert one.shape == other.shape
    assert not torch.allclose(one, other, atol=0.05)
    theirs = augmix(IMAGES, 2, seeded(), resampling="pillow")
    assert not torch.allclose(theirs, other, atol=0.01)


def test_augmix_views():
    views = augmix(IMAGES, 4, seeded())
    assert views.shape == (6, 4, 3, 12, 10)
    assert (views >= 0).all()
    assert (views <= 1 + 1e-6).all()
    assert torch.equal(views, augmix(IMAGES, 4, seeded()))
    assert len(views.flatten(2).unique(dim=1)[0]) == 4


def test_mixing_alone_leaves_the_cropped_and_flipped_image(monkeypatch):
    monkeypatch.setattr(mix, "OPERATIONS", [lambda images, strength, sign: images])
    generator = seeded()
    crops = augment.apply(IMAGES.repeat_interleave(3, 0), augment.draw("crop_flip", 18, (12, 10), generator))
    torch.testing.assert_close(augmix(IMAGES, 3, seeded()).flatten(0, 1), intensities(crops))


@pytest.mark.parametrize("name", ["memo", "cotta", "rotta", "roid"])
@pytest.mark.parametrize(
    ("flip", "mirrors", "expected"), [(None, False, False), (None, True, True), (True, False, True)]
)
def test_views_are_mirrored_where_the_data_allow_it_or_it_is_asked_for(name, flip, mirrors, expected, monkeypatch):
    options, asked = OmegaConf.load(METHODS / f"{name}.yaml"), set()
    assert options.pop("flip") is None
    options.pop("defaults")
    method = instantiate(options, _convert_="all", model=alone.network(), flip=flip)

    def jitter(images, generator, blur=True, flip=True):
        asked.add(flip)
        return images

    def mixed(images, views, generator, flip, *options):
        asked.add(flip)
        return images[:, None].expand(-1, views, -1, -1, -1)

    room = importlib.import_module(type(method).__module__)
    monkeypatch.setattr(room, "augmix" if name == "memo" else "jittered", mixed if name == "memo" else jitter)
    alone.answers(method, [alone.images(4 if name == "memo" else 64)], mirrors=mirrors)
    assert asked == {expected}


def test_of_digits_a_mirror_image_means_something_else():
    kinds = (Digits, MNIST, FashionMNIST, CIFAR10, ColoredMNIST, RotatedMNIST)
    assert [kind.title for kind in kinds if kind.mirrors] == ["Fashion-MNIST", "CIFAR-10"]


def test_without_flips_an_asymmetric_image_is_never_mirrored():
    """Bright left half: its views' left halves stay the brighter ones."""
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[..., :8] = 200
    generator = seeded()
    sides = {flip: set() for flip in (True, False)}
    for flip in sides:
        for view in (
            augmix(image, 30, generator, flip)[0],
            *(jittered(image, generator, flip=flip) for _ in range(20)),
        ):
            left, right = view[..., 3:6].mean((-1, -2, -3)), view[..., 10:13].mean((-1, -2, -3))
            sides[flip] |= set((left > right).tolist())
    assert sides == {True: {True, False}, False: {True}}
