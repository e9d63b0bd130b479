"""Folders as people have them: which are splits and classes, which files count, and that nothing is left out unsaid."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fisherexp.data import remarks
from fisherexp.data.domain_folder import DomainFolder
from fisherexp.data.errors import DataError
from fisherexp.data.image_folder import ImageFolder
from fisherexp.data.imagenet import ImageNet
from fisherexp.problems.supervised import Supervised
from fisherexp.scenarios.plain import Plain

RANDOM = np.random.RandomState(0)


def write(root: Path, *files: str) -> Path:
    """Image files at paths below `root`, each of other pixels."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.randint(0, 256, (8, 8, 3), np.uint8)).save(root / name)
    return root


def make(path, **options) -> ImageFolder:
    return ImageFolder(str(path), **{"image_size": 8} | options).load()


SPLIT = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in ("a", "b") for i in range(2)]


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("TRAIN", "TEST"), ("train", "val"), ("training", "Validation"), ("Train", "valid")],
)
def test_splits_under_other_names_are_no_classes(train, test, tmp_path):
    write(tmp_path, *(name.replace("train", train, 1).replace("test", test, 1) for name in SPLIT))
    data = make(tmp_path)
    assert (data.class_names, len(data.train), len(data.test)) == (["a", "b"], 4, 4)
    assert data.remarks == {}


def test_validation_images_beside_test_images_are_left_out_and_counted(tmp_path):
    data = make(write(tmp_path, *SPLIT, "val/a/1.png", "val/b/1.png", "val/b/2.png"))
    assert (len(data.train), len(data.test)) == (4, 4)
    assert data.remarks == {"not read": {"images of the folder val": 3}}


def test_imagenet_takes_val_and_nothing_else(tmp_path):
    write(tmp_path, *SPLIT)
    with pytest.raises(DataError, match="has a folder 'train' but no folder 'val'"):
        ImageNet(str(tmp_path), image_size=8).load()
    write(tmp_path, "val/a/9.png", "val/b/9.png")
    assert len(ImageNet(str(tmp_path), image_size=8).load().test) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/a/1.png", "Train/a/2.png", "test/a/1.png"],
            r"has the folders Train and train; which of them is meant",
        ),
        (["val/a/1.png", "val/b/1.png"], "has a folder 'val' but no folder 'train'$"),
        (["cats/train/1.png", "cats/test/1.png", "dogs/train/1.png"], r"cats has folders test and train, .*no classes"),
        (["photos/a/1.png", "photos/b/1.png"], r"has the one class 'photos'; are the classes in there"),
        (["train/a/1.png", "test/a/1.png"], "has the one class 'a'"),
        ([".hidden/1.png", "__MACOSX/a/1.png"], "one folder of images per class is expected$"),
        (["1.png", "2.png"], "one folder of images per class is expected$"),
        (["a/.ipynb_checkpoints/1.png", "b/1.png"], r"a has no images \("),
    ],
)
def test_what_is_no_data_set_is_one_line(files, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        make(write(tmp_path, *files))
    assert "\n" not in str(caught.value)


def test_a_folder_of_domains_is_not_taken_for_one_of_splits(tmp_path):
    write(tmp_path, "art/train/a/1.png", "art/test/a/1.png", "photo/train/a/1.png", "photo/test/a/1.png")
    with pytest.raises(DataError, match="art has folders test and train, which are no classes"):
        DomainFolder(str(tmp_path), image_size=8).load()


def test_hidden_copies_and_what_is_no_image_are_left_out_and_counted(tmp_path, capsys):
    write(tmp_path, *SPLIT, "train/a/.ipynb_checkpoints/0-checkpoint.png", "train/b/deep/3.jfif", "train/loose.png")
    write(tmp_path, ".ipynb_checkpoints/x/1.png", "__MACOSX/a/1.png", "test/a/._0.png", "train/.trash/1.png")
    (tmp_path / "train" / "a" / "labels.CSV").write_text("a")
    (tmp_path / "train" / "b" / "photo.heic").write_text("a")
    (tmp_path / "train" / "b" / "README").write_text("a")
    data = make(tmp_path)
    assert data.class_names == ["a", "b"]
    assert (len(data.train), len(data.test)) == (5, 4)
    expected = {".csv": 1, ".heic": 1, "without a suffix": 1, "hidden": 2, "images outside the folders of classes": 1}
    assert data.remarks == {"not read": expected}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"{tmp_path}: not read: 1 .csv, 1 .heic, ")


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    elsewhere = write(tmp_path / "elsewhere", "1.png", "2.png", "more/3.png")
    write(tmp_path / "data", "a/1.png", "b/1.png")
    (tmp_path / "data" / "c").symlink_to(elsewhere)  # a class
    (tmp_path / "data" / "a" / "more").symlink_to(elsewhere / "more")  # a folder in a class
    (tmp_path / "data" / "b" / "2.png").symlink_to(elsewhere / "2.png")  # a file
    (tmp_path / "data" / "b" / "loop").symlink_to(tmp_path / "data" / "b")
    data = make(tmp_path / "data", test_share=1 / 7)
    assert data.class_names == ["a", "b", "c"]
    assert torch.cat([data.train.targets, data.test.targets]).bincount().tolist() == [2, 2, 3]


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_link_to_nothing_is_named(in_memory, tmp_path):
    write(tmp_path, *SPLIT)
    (tmp_path / "train" / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"train/a/2\.png cannot be decoded: it is a link to .*gone\.png, which is not"):
        make(tmp_path, in_memory=in_memory)


@pytest.mark.parametrize("in_memory", [True, False])
def test_conversions_are_said_once_and_kept_for_the_record(in_memory, tmp_path, capsys):
    write(tmp_path, *SPLIT)
    ramp = np.linspace(0, 65535, 64).reshape(8, 8)
    for name in ("train/a/8.png", "test/b/8.png"):
        Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / name)
    Image.fromarray(np.zeros((8, 8, 4), np.uint8), "CMYK").save(tmp_path / "train/b/8.jpg")
    data, again = make(tmp_path, in_memory=in_memory), make(tmp_path, in_memory=in_memory)
    assert data.remarks == again.remarks == {"converted": {"more than 8 bits to 8": 2, "CMYK to RGB": 1}}
    assert capsys.readouterr().err == f"{tmp_path}: converted: 1 CMYK to RGB, 2 more than 8 bits to 8\n"
    problem = Supervised(data, Plain(), None, None, False, None).load(0)
    assert problem.about()["data"] == data.remarks
    plain = Supervised(make(write(tmp_path / "plain", *SPLIT)), Plain(), None, None, False, None).load(0)
    assert "data" not in plain.about()


def test_options_of_decoding_reach_every_split_and_its_hash(tmp_path):
    write(tmp_path, *SPLIT)
    ramp = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    for name in ("train/a/8.png", "test/b/8.png"):
        Image.fromarray(ramp).save(tmp_path / name)
    with pytest.raises(DataError, match=r"8\.png has intensities from 0 to 4095"):
        make(tmp_path)
    found = [
        make(tmp_path, intensity_range=[0, white], in_memory=memory) for white in (4095, 5000) for memory in (1, 0)
    ]
    for data, white in zip(found, (4095, 4095, 5000, 5000), strict=True):
        for split in (data.train, data.test):
            image = [batch.inputs for batch in split.loader(1)][2 if split is data.train else 4][0]
            assert torch.equal(image[0], torch.from_numpy(np.rint(255 * (ramp / white))).to(torch.uint8))
    assert len({data.checksum() for data in found}) == 4


@pytest.mark.parametrize("ends", [[0], [5, 5], [9, 1], [0, float("inf")], [0, 1, 2]])
def test_a_range_that_is_none_is_one_line(ends, tmp_path):
    with pytest.raises(DataError, match=r"data\.intensity_range=\[.*two numbers, black and white"):
        make(write(tmp_path, *SPLIT), intensity_range=ends)


def test_followers_are_silent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(remarks, "is_follower", lambda: True)
    make(write(tmp_path, *SPLIT, "val/a/1.png"))
    assert capsys.readouterr().err == ""


def test_a_list_of_test_images(tmp_path):
    """Such as RobustBench's 5,000 of ImageNet."""
    write(tmp_path, *(name.replace("test", "val") for name in SPLIT))
    whole = ImageNet(str(tmp_path), image_size=8, root=str(tmp_path)).load()
    (tmp_path / "ids.txt").write_text("b/1.png\na/0.png\n\n")
    data = ImageNet(str(tmp_path), "ids.txt", image_size=8, in_memory=False, root=str(tmp_path)).load()
    assert data.test.paths == ["b/1.png", "a/0.png"]
    assert data.test.targets.tolist() == [1, 0]
    assert (len(data.train), data.altered, whole.altered) == (4, True, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a/0.png\nc/7.png\nc/8.png\n", r"has no c/7\.png, which .*ids\.txt lists \(2 are missing\)$"),
        (b"a/0.png\na/0.png\n", "names an image twice$"),
        (b"\n", "names no image$"),
        (b"\xff\xfe\x00", r"data\.test_list: .*ids\.txt is no readable list"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(content, message, tmp_path):
    write(tmp_path, *(name.replace("test", "val") for name in SPLIT))
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        ImageNet(str(tmp_path), str(tmp_path / "ids.txt"), image_size=8).load()
