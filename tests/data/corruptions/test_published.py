"""Published corrupted sets, read from files, and textures of frost."""

import numpy as np
import pytest
import torch
from PIL import Image

from fisherexp.data.corruptions import Suite, corrupt
from fisherexp.data.corruptions.frost import COLORS, DEVIATIONS, FILES, generated
from fisherexp.data.corruptions.published import published
from fisherexp.data.corruptions.suite import joined
from fisherexp.data.digits import Digits
from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.tensors import TensorSet
from fisherexp.scenarios.streams import Continual
from fisherexp.seeds import generator

COUNT = 12


@pytest.fixture
def test_set():
    images = torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=generator("images"))
    return TensorSet(images, torch.arange(COUNT) % 3)


@pytest.fixture
def arrays(tmp_path, test_set):
    """A folder as CIFAR-10-C's: the image of severity s, number i, is all s·20 + i."""
    values = (20 * torch.arange(1, 6)[:, None] + torch.arange(COUNT)).flatten()
    np.save(tmp_path / "fog.npy", values.to(torch.uint8)[:, None, None, None].expand(-1, 32, 32, 3).numpy())
    np.save(tmp_path / "labels.npy", test_set.targets.repeat(5).numpy().astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize("severity", [1, 5])
def test_arrays_are_cut_by_severity(arrays, test_set, severity):
    order = torch.tensor([7, 2, 9])
    found = Suite(test_set, order, folder=arrays).corrupted("fog", severity)
    assert found.inputs[:, 0, 0, 0].tolist() == [20 * severity + i for i in order.tolist()]
    assert torch.equal(found.targets, test_set.targets[order])
    assert found.inputs.shape == (3, 3, 32, 32)


def test_wrong_arrays_are_refused(arrays, test_set):
    with pytest.raises(DataError, match=r"neither snow\.npy nor a folder snow/5"):
        published(arrays, "snow", 5, test_set)
    with pytest.raises(DataError, match="not the labels of this test set"):
        published(arrays, "fog", 5, TensorSet(test_set.inputs, test_set.targets.flip(0)))
    with pytest.raises(DataError, match=r"\(60, 32, 32, 3\); uint8 \(5·11, H, W, C\) is expected"):
        published(arrays, "fog", 5, test_set.subset(range(11)))
    with pytest.raises(DataError, match=r"has images \(3, 32, 32\), the test set \(1, 32, 32\)"):
        published(arrays, "fog", 5, TensorSet(test_set.inputs[:, :1], test_set.targets))
    (arrays / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels\.npy are needed"):
        published(arrays, "fog", 5, test_set)


def test_folders_of_files(tmp_path):
    paths = [f"{label}/{i}.png" for i, label in enumerate("aabb")]
    for folder, shift in (("test", 0), ("c/fog/5", 100), ("c/snow/5", 200)):
        for i, path in enumerate(paths):
            file = tmp_path / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (shift + i,) * 3).save(file)
    test = FileSet(tmp_path / "test", paths, torch.tensor([0, 0, 1, 1]), 8)
    suite = Suite(test, torch.tensor([3, 0]), folder=tmp_path / "c")
    both = joined([suite.corrupted("fog", 5), suite.corrupted("snow", 5)])
    assert both.in_memory().inputs[:, 0, 0, 0].tolist() == [103, 100, 203, 200]
    assert both.targets.tolist() == [1, 0, 1, 0]
    (tmp_path / "c/fog/5" / paths[1]).unlink()
    with pytest.raises(DataError, match=r"has no fog/5/a/1\.png"):
        suite.corrupted("fog", 5)


def test_a_published_folder_is_preferred_and_recorded(tmp_path):
    data = Digits(root=str(tmp_path)).load()
    data.published_corruptions = "digits-c"
    scenario = Continual(["fog"], images=5)
    assert scenario.setting(data, 0).about["corruptions"] == "generated, cifar table"
    folder = tmp_path / "digits-c"
    folder.mkdir()
    np.save(folder / "fog.npy", np.full((5 * len(data.test), 8, 8, 1), 77, np.uint8))
    np.save(folder / "labels.npy", data.test.targets.repeat(5).numpy())
    setting = scenario.setting(data, 0)
    assert setting.about["corruptions"] == str(folder)
    assert (setting.parts["fog"].inputs == 77).all()
    ignoring = Continual(["fog"], images=5, published=None).setting(data, 0)
    assert not (ignoring.parts["fog"].inputs == 77).all()


@pytest.mark.parametrize(
    ("options", "name", "refused"),
    [
        ({}, "CIFAR-10-C", None),
        ({"table": "imagenet"}, "CIFAR-10-C", "table=imagenet"),
        ({"saved": "jpeg"}, "CIFAR-10-C", "saved=jpeg"),
        ({"frost_textures": "."}, "CIFAR-10-C", "frost_textures=."),
        ({}, "ImageNet-C", None),
        ({"table": "imagenet"}, "ImageNet-C", None),
    ],
)
def test_options_of_generated_images_are_refused_beside_published_ones(tmp_path, options, name, refused):
    data = Digits(root=str(tmp_path)).load()
    data.published_corruptions = name
    (tmp_path / name).mkdir()
    np.save(tmp_path / name / "fog.npy", np.full((5 * len(data.test), 8, 8, 1), 77, np.uint8))
    np.save(tmp_path / name / "labels.npy", data.test.targets.repeat(5).numpy())
    Continual(["fog"], published=None, **options).setting(data, 0)
    if refused is None:
        assert (Continual(["fog"], **options).setting(data, 0).parts["fog"].inputs == 77).all()
        return
    with pytest.raises(ValueError, match=rf"scenario\.{refused} is of generated images, and .*published=null"):
        Continual(["fog"], **options).setting(data, 0)


@pytest.mark.parametrize(
    ("name", "options", "altered"),
    [
        (None, {}, False),
        (None, {"table": "imagenet"}, True),
        (None, {"saved": "jpeg"}, True),
        ("ImageNet-C", {}, True),  # with the constants of CIFAR-10-C
        ("ImageNet-C", {"table": "imagenet"}, False),
        ("ImageNet-C", {"table": "imagenet", "saved": "lossless"}, True),
    ],
)
def test_images_made_otherwise_than_the_published_ones_are_of_another_protocol(tmp_path, name, options, altered):
    data = Digits(root=str(tmp_path)).load()
    data.published_corruptions = name
    data.test = data.test.subset(range(10))
    assert Continual(**options).setting(data, 0).altered == altered


@pytest.mark.parametrize("scale", [0.2, 1])
def test_generated_textures_are_as_bright_as_the_photographs(scale):
    textures = generated(32, 32, scale)
    assert len(textures) == 5
    for texture, color, deviation in zip(textures, COLORS, DEVIATIONS, strict=True):
        values = texture.double()
        assert values.mean((1, 2)).tolist() == pytest.approx(color, abs=3)
        assert values[0].std().item() == pytest.approx(deviation, rel=0.25)
        # From pixel to pixel, as shares of the deviation: the photographs have 0.5 to 0.65, scaled 0.8 to 1.0.
        roughness = ((values[0, :, 1:] - values[0, :, :-1]).std() / values[0].std()).item()
        assert 0.5 < roughness < 1.2 if scale < 1 else 0.2 < roughness < 0.7


def test_given_textures_are_used(tmp_path):
    images = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    for number, name in enumerate(FILES):
        Image.new("RGB", (100, 90), (10 * number, 0, 0)).save(tmp_path / name, quality=100)
    found = corrupt(images, "frost", 1, frost_folder=tmp_path)
    colors = found[:, 0].flatten(1).double().mean(1)
    assert {round(5 * c / 10) for c in colors.tolist()} == {0, 1, 2, 3, 4}  # weight 0.2; all five occur
    with pytest.raises(DataError, match=r"frost1\.png, scaled by 0\.2: 18×20 is too small"):
        corrupt(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "frost", 2, frost_folder=tmp_path)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(DataError, match=r"frost2\.png cannot be read"):
        corrupt(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "frost", 1, frost_folder=tmp_path)
