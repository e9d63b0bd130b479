"""Batched augmentation against the same operations done image by image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from fisherexp.data import augment
from fisherexp.seeds import generator

SIZES = [(8, 8), (28, 28), (32, 32), (24, 40)]


def images_of(size, channels=3, count=16):
    return torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator("images"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("policy", ["crop", "crop_flip"])
def test_crop_and_flip_equal_the_per_image_operations(policy, size):
    images = images_of(size)
    draws = augment.draw(policy, len(images), size, generator(1))
    vertical, horizontal = augment.padding_for(size)
    expected = []
    for i, image in enumerate(images):
        padded = reference.pad(image, [horizontal, vertical])
        one = reference.crop(padded, int(draws["top"][i]), int(draws["left"][i]), *size)
        if policy == "crop_flip" and draws["flip"][i]:
            one = reference.hflip(one)
        expected.append(one)
    assert torch.equal(augment.apply(images, draws), torch.stack(expected))


@pytest.mark.parametrize("size", SIZES)
def test_rotation_equals_the_per_image_operation(size):
    images = images_of(size)
    degrees = torch.linspace(-15, 15, len(images))
    expected = [
        reference.rotate(image, float(angle), InterpolationMode.BILINEAR)
        for image, angle in zip(images, degrees, strict=True)
    ]
    difference = augment.rotate(images, degrees).int() - torch.stack(expected).int()
    assert difference.abs().max() <= 1  # rounding of values that lie halfway
    assert (difference != 0).float().mean() < 0.001


def test_policies_add_to_each_other():
    images = images_of((8, 8))
    for policy in ("crop", "crop_flip", "crop_flip_rotate"):
        draws = augment.draw(policy, len(images), (8, 8), generator(1))
        assert (
            set(draws)
            == {"top", "left", "flip", "degrees"}
            - {
                "crop": {"flip", "degrees"},
                "crop_flip": {"degrees"},
                "crop_flip_rotate": set(),
            }[policy]
        )
    assert augment.draw("none", 5, (8, 8), generator(1)) == {}
    assert torch.equal(augment.apply(images, {}), images)


def test_draws_are_uniform_over_their_range():
    draws = augment.draw("crop_flip_rotate", 20_000, (32, 32), generator(1))
    for name in ("top", "left"):
        counts = draws[name].bincount(minlength=9)
        assert len(counts) == 9  # offsets 0…8 in the image padded by 4
        assert (counts - 20_000 / 9).abs().max() < 250
    assert abs(draws["flip"].float().mean() - 0.5) < 0.02
    assert draws["degrees"].abs().max() <= 15
    assert abs(draws["degrees"].mean()) < 0.3


def test_zero_strength_changes_nothing():
    images = images_of((28, 28))
    zeros = torch.zeros(len(images))
    assert torch.equal(augment.flip(images, zeros.bool()), images)
    assert torch.equal(augment.rotate(images, zeros), images)
    center = torch.full((len(images),), 4)
    assert torch.equal(augment.crop(images, center, center), images)


def test_generators_are_named_by_their_whole_key():
    keys = [("a", 0, 1), ("a", 1, 0), ("a", 0, 2**32 + 1), ("a", 0), ("a", 0, 0), ("b", 0, 1), ("a", "0", 1)]
    first = [torch.rand(1, generator=generator(*key)).item() for key in keys]
    assert len(set(first)) == len(keys)
    assert torch.rand(1, generator=generator("a", 0, 1)).item() == first[0]
