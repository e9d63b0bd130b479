"""Image files in folders: in memory and batch by batch are the same data."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from fisherexp.data.errors import DataError
from fisherexp.data.files import decode
from fisherexp.data.image_folder import ImageFolder
from fisherexp.data.imagenet import ImageNet

RANDOM = np.random.RandomState(0)


def write(folder, count, size=(20, 16), suffix="png", **save_options):
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = RANDOM.randint(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.{suffix}", **save_options)


@pytest.fixture
def split(tmp_path):
    for part, count in (("train", 7), ("test", 3)):
        for name in ("cat", "ant", "bee"):
            write(tmp_path / part / name, count)
    (tmp_path / "train" / "ant" / "readme.txt").write_text("not an image")
    return tmp_path


@pytest.fixture
def single(tmp_path):
    for name in ("ant", "bee"):
        write(tmp_path / name, 10)
    return tmp_path


def make(path, **options) -> ImageFolder:
    return ImageFolder(str(path), **{"image_size": 8} | options).load()


def same(ours, theirs) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return bool(pairs) and all(torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) for a, b in pairs)


def test_folders_become_classes(split):
    data = make(split)
    assert data.class_names == ["ant", "bee", "cat"]
    assert (data.num_classes, data.input_shape) == (3, (3, 8, 8))
    assert data.train.inputs.shape == (21, 3, 8, 8)
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.targets.bincount().tolist() == [7, 7, 7]
    assert data.test.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(data.test.inputs[4], decode(split / "test" / "bee" / "01.png", 8))


def test_imagenet_is_evaluated_on_its_validation_images(split):
    with pytest.raises(DataError, match="a folder 'train' but no folder 'val'"):
        ImageNet(str(split)).load()
    (split / "test").rename(split / "val")
    data = ImageNet(str(split), image_size=8).load()
    assert torch.equal(data.test.inputs[4], decode(split / "val" / "bee" / "01.png", 8))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False},
        {"shuffle": True, "augment": True},
        {"shuffle": True, "augment": True, "rank": 1, "world_size": 2, "seed": 4},
    ],
)
def test_in_memory_and_from_disk_give_the_same_batches(split, options, workers):
    in_memory = make(split, augment="crop_flip_rotate", batch_size=4, eval_batch_size=4)
    lazy = make(split, augment="crop_flip_rotate", batch_size=4, eval_batch_size=4, in_memory=False, workers=workers)
    ours, theirs = lazy.loader(lazy.train, **options), in_memory.loader(in_memory.train, **options)
    assert len(ours) == len(theirs)
    assert same(ours, theirs)
    assert same(ours, theirs)  # the second epoch, too


def test_subsets_and_validation_are_the_same_from_disk(split):
    in_memory, lazy = make(split, validation=0.3), make(split, validation=0.3, in_memory=False)
    assert len(in_memory.validation) == len(lazy.validation) == 6
    for name in ("train", "validation", "test"):
        chosen = (getattr(lazy, name).targets == 1).nonzero()[:, 0]
        ours, theirs = (getattr(data, name).subset(chosen).loader(2) for data in (lazy, in_memory))
        assert same(ours, theirs)


def test_reading_from_disk_resumes_in_mid_epoch(split):
    lazy = make(split, in_memory=False, augment="crop", batch_size=4)
    options = {"shuffle": True, "augment": True}
    whole = list(lazy.loader(lazy.train, **options))
    first, second = (lazy.loader(lazy.train, **options) for _ in range(2))
    iterator = iter(first)
    seen = [next(iterator), next(iterator)]
    second.load_state_dict(first.state_dict())
    assert same(seen + list(second), whole)


def test_reading_from_disk_leaves_the_global_random_state(split):
    lazy = make(split, in_memory=False)
    before = torch.get_rng_state()
    list(lazy.loader(lazy.train, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())


def test_checksum_sees_pixels_in_memory_and_files_on_disk(split):
    before = make(split).checksum(), make(split, in_memory=False).checksum()
    assert before == (make(split).checksum(), make(split, in_memory=False).checksum())
    write(split / "new", 1, (30, 30))
    (split / "new" / "00.png").replace(split / "test" / "bee" / "01.png")
    (split / "new").rmdir()
    after = make(split).checksum(), make(split, in_memory=False).checksum()
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_checksum_sees_files_of_one_size_that_changed_places(split):
    before = make(split, in_memory=False).checksum()
    one, other = (split / "train" / name / "00.png" for name in sorted(p.name for p in (split / "train").iterdir())[:2])
    longest = 1 + max(one.stat().st_size, other.stat().st_size)
    for file, filling in ((one, b"1"), (other, b"2")):  # behind the image, where no decoder looks
        file.write_bytes(file.read_bytes().ljust(longest, filling))
    same_size = make(split, in_memory=False).checksum()
    one.rename(split / "t")
    other.rename(one)
    (split / "t").rename(other)
    assert len({before, same_size, make(split, in_memory=False).checksum()}) == 3


def test_one_folder_is_split_the_same_whatever_the_seed(single):
    data, other = make(single, test_share=0.25), make(single, test_share=0.25, seed=9)
    assert (len(data.train), len(data.test)) == (15, 5)
    assert torch.equal(data.test.inputs, other.test.inputs)
    parts = torch.cat([data.train.inputs, data.test.inputs]).flatten(1).tolist()
    assert len(set(map(tuple, parts))) == 20


def test_decoding_takes_the_centered_square_and_keeps_colors(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = RANDOM.randint(0, 256, (4, 4, 3))
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert torch.equal(decode(tmp_path / "wide.png", 4), torch.from_numpy(pixels[:, 2:6]).permute(2, 0, 1))
    Image.fromarray(pixels[:, 2:6, 0]).save(tmp_path / "gray.png")
    assert torch.equal(decode(tmp_path / "gray.png", 4), torch.from_numpy(pixels[:, 2:6, 0]).expand(3, 4, 4))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"no image", "torn"])
def test_an_unreadable_image_is_named_in_one_line(split, content, workers):
    path = split / "train" / "bee" / "03.png"
    path.write_bytes(path.read_bytes()[:200] if content == "torn" else content)
    with pytest.raises(DataError, match=rf"^{path} cannot be decoded: [^\n]+$"):
        make(split)

    def go_through_files():
        lazy = make(split, in_memory=False, workers=workers)  # what has no header is found here already
        list(lazy.loader(lazy.train, shuffle=False))

    with pytest.raises(DataError, match=rf"^{path} cannot be decoded: [^\n]+$"):
        go_through_files()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "train" / "dog").mkdir(), "the classes in 'train' and 'test' differ by dog$"),
        (lambda p: (p / "test").rename(p / "holdout"), "has a folder 'train' but no folder 'test'$"),
        (lambda p: [f.unlink() for f in (p / "test" / "ant").iterdir()], "ant has no images "),
    ],
)
def test_malformed_folders_are_one_line(split, change, message):
    change(split)
    with pytest.raises(DataError, match=message) as caught:
        make(split)
    assert "\n" not in str(caught.value)


def test_missing_or_empty_folder_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"there is no 'photos' in .*; set data\.path$"):
        make("photos", root=str(tmp_path))
    with pytest.raises(DataError, match=r"one folder of images per class is expected$"):
        make(tmp_path)


def test_a_split_without_test_images_is_refused(single):
    with pytest.raises(DataError, match=r"leaves no test images; change data.test_share \(0.0\)"):
        make(single, test_share=0.0)


@pytest.mark.parametrize("workers", [0, 1])
def test_tags_travel_with_the_files(split, workers):
    files = make(split, in_memory=False, workers=workers).train
    tagged = files.tagged(index=torch.arange(len(files)), forgotten=True)
    assert files.tags == {}
    assert tagged.subset([4, 1]).tags["index"].tolist() == [4, 1]
    seen = []
    for batch in tagged.subset(range(2, 12)).loader(4, shuffle=True):
        assert torch.equal(batch.targets, files.targets[batch.tags["index"]])
        assert torch.equal(batch.inputs[0], files[batch.tags["index"][0]][0])
        assert batch.tags["forgotten"].tolist() == [True] * batch.size
        seen += batch.tags["index"].tolist()
    assert sorted(seen) == list(range(2, 12))
    assert torch.equal(tagged.in_memory().tags["index"], torch.arange(len(files)))
    with pytest.raises(ValueError, match="tag index must be"):
        files.tagged(index=torch.arange(3))


def test_the_hash_of_files_changes_with_a_tag(split):
    def digest(files) -> str:
        found = hashlib.blake2b()
        files.hash_into(found)
        return found.hexdigest()

    files = make(split, in_memory=False).train
    found = [digest(f) for f in (files, files.tagged(domain=0), files.tagged(domain=1), files.tagged(source=0))]
    assert len(set(found)) == 4
    assert digest(files.tagged(domain=0)) == found[1]
