"""MNIST and CIFAR files, hand-made: reading, checking, downloading."""

import gzip
import hashlib
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch
import torchvision

from fisherexp.data.errors import DataError
from fisherexp.data.idx import parse_idx
from fisherexp.data.torchvision_sets import CIFAR10, CIFAR20, CIFAR100, MNIST, FashionMNIST

RANDOM = np.random.RandomState(0)
IMAGES = {
    "train": RANDOM.randint(0, 256, (20, 28, 28), np.uint8),
    "t10k": RANDOM.randint(0, 256, (6, 28, 28), np.uint8),
}
LABELS = {"train": np.arange(20, dtype=np.uint8) % 10, "t10k": np.arange(6, dtype=np.uint8)}


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def mnist(tmp_path):
    """A class that expects hand-made files, the files lying in tmp_path."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    sums = {}
    for split in ("train", "t10k"):
        for name, array in (
            (f"{split}-images-idx3-ubyte.gz", IMAGES),
            (f"{split}-labels-idx1-ubyte.gz", LABELS),
        ):
            content = gzip.compress(idx(array[split]))
            (folder / name).write_bytes(content)
            sums[name] = md5(content)

    class HandMade(MNIST):
        train_files = {name: sums[name] for name in MNIST.train_files}
        test_files = {name: sums[name] for name in MNIST.test_files}

    return HandMade


def test_mnist_files_are_read(mnist, tmp_path):
    data = mnist(root=str(tmp_path)).load()
    for ours, split in ((data.train, "train"), (data.test, "t10k")):
        assert torch.equal(ours.inputs, torch.from_numpy(IMAGES[split])[:, None])
        assert torch.equal(ours.targets, torch.from_numpy(LABELS[split]).long())


def test_data_folder_comes_from_the_environment(mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("FISHEREXP_DATA", str(tmp_path))
    assert len(mnist().load().train) == 20


def test_missing_file_is_one_line_with_name_checksum_and_place(tmp_path):
    with pytest.raises(DataError) as caught:
        MNIST(root=str(tmp_path)).load()
    message = str(caught.value)
    assert "\n" not in message
    assert "train-images-idx3-ubyte.gz" in message
    assert "f68b3c2dcbeaaa9fbdd348bbdeb94873" in message
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "data.download=true" in message


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:50] + b"x" + c[51:], lambda c: b""])
def test_corrupt_file_is_one_line_with_name_and_both_checksums(mnist, tmp_path, damage):
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        mnist(root=str(tmp_path), download=True).load()
    message = str(caught.value)
    assert "\n" not in message
    assert "t10k-images-idx3-ubyte.gz is corrupt" in message
    assert md5(path.read_bytes()) in message
    assert mnist.test_files["t10k-images-idx3-ubyte.gz"] in message


def test_download_fetches_only_what_is_missing(mnist, tmp_path, monkeypatch):
    folder = tmp_path / "MNIST" / "raw"
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *a, **k: pytest.fail("nothing is missing"))
    mnist(root=str(tmp_path), download=True).load()

    wanted = {path.name: path.read_bytes() for path in folder.iterdir()}
    lost = "t10k-labels-idx1-ubyte.gz"
    (folder / lost).unlink()
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    def fetch(root, download):
        assert download
        assert not list(folder.glob(lost))  # arrives whole or not at all
        for name, content in wanted.items():
            target = tmp_path.__class__(root) / "MNIST" / "raw"
            target.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    assert len(mnist(root=str(tmp_path), download=True).load().test) == 6
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(tmp_path.glob(".download-*"))


def test_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(root, download):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(DataError) as caught:
        CIFAR10(root=str(tmp_path), download=True).load()
    message = str(caught.value)
    assert "\n" not in message
    assert "no route to host" in message
    assert "data_batch_1 (md5 c99cafc152244af753f735de768cd75f)" in message
    assert not list(tmp_path.glob(".download-*"))


@pytest.fixture
def cifar():
    """(class that expects hand-made batches, name -> content, all images, all labels)."""
    images = RANDOM.randint(0, 256, (12, 3, 32, 32), np.uint8)
    labels = [*range(10), 0, 1]
    contents = {}
    for i, name in enumerate([*CIFAR10.train_files, *CIFAR10.test_files]):
        part = slice(2 * i, 2 * i + 2)
        contents[name] = pickle.dumps({"data": images[part].reshape(2, -1), "labels": labels[part]})

    class HandMade(CIFAR10):
        train_files = {name: md5(contents[name]) for name in CIFAR10.train_files}
        test_files = {name: md5(contents[name]) for name in CIFAR10.test_files}

    return HandMade, contents, torch.from_numpy(images), torch.tensor(labels)


def test_cifar_batches_are_read_in_order(cifar, tmp_path):
    handmade, contents, images, labels = cifar
    (tmp_path / handmade.folder).mkdir()
    for name, content in contents.items():
        (tmp_path / handmade.folder / name).write_bytes(content)
    data = handmade(root=str(tmp_path)).load()
    assert torch.equal(torch.cat([data.train.inputs, data.test.inputs]), images)
    assert torch.equal(torch.cat([data.train.targets, data.test.targets]), labels)
    assert data.train.inputs.is_contiguous()


def test_archive_in_the_data_folder_is_used_without_a_network(cifar, tmp_path, monkeypatch):
    handmade, contents, images, _ = cifar
    source = tmp_path / "source" / handmade.folder
    source.mkdir(parents=True)
    for name, content in contents.items():
        (source / name).write_bytes(content)
    with tarfile.open(tmp_path / handmade.archive, "w:gz") as archive:
        archive.add(source, handmade.folder)

    def unpack(root, download):
        with tarfile.open(tmp_path.__class__(root) / handmade.archive) as archive:
            # Python before 3.11.4 has no filters.
            archive.extractall(root, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unpack)
    assert torch.equal(handmade(root=str(tmp_path), download=True).load().train.inputs, images[:10])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it begins with nothing"),
        (b"\x1f\x8b\x08\x00", "not an idx file of unsigned bytes: it begins with 1f8b0800"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "it begins with 00000d01"),
        (b"\0\0\x08\x03\0\0", "ends within its header, after 6 bytes"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"declares shape \(2, 3\) but holds 5 values"),
        (idx(np.zeros((2, 3), np.uint8)) + b"x", r"declares shape \(2, 3\) but holds 7 values"),
    ],
)
def test_malformed_idx(content, message):
    with pytest.raises(DataError, match=f"^f.gz .*{message}$"):
        parse_idx(content, "f.gz")


def test_checksums_are_those_torchvision_knows():
    for ours in (MNIST, FashionMNIST):
        theirs = getattr(torchvision.datasets, ours.torchvision_name)
        assert ours.train_files | ours.test_files == dict(theirs.resources)
    for ours in (CIFAR10, CIFAR100):
        theirs = getattr(torchvision.datasets, ours.torchvision_name)
        assert ours.train_files == dict(theirs.train_list)
        assert ours.test_files == dict(theirs.test_list)
        assert (ours.folder, ours.archive) == (theirs.base_folder, theirs.filename)


@pytest.mark.parametrize("data", [MNIST, FashionMNIST, CIFAR10, CIFAR100])
def test_declarations_agree_with_each_other(data):
    assert len(set(data.class_names)) == data.num_classes
    assert len(data.mean) == len(data.std) == data.input_shape[0]


def test_cifar20_takes_its_superclasses_from_the_file_and_keeps_the_fine_labels(tmp_path):
    fine = np.arange(200) % 100
    coarse = fine * 7 % 20  # five fine classes each, in no simple order
    folder, sums = tmp_path / "cifar-100-python", {}
    folder.mkdir()
    for name, chosen in (("train", slice(None)), ("test", slice(150, 160))):
        labels = {"fine_labels": fine[chosen].tolist(), "coarse_labels": coarse[chosen].tolist()}
        pixels = np.random.RandomState(1).randint(0, 256, (len(labels["fine_labels"]), 3072), np.uint8)
        content = pickle.dumps({"data": pixels, **labels})
        (folder / name).write_bytes(content)
        sums[name] = md5(content)

    class HandMade(CIFAR20):
        train_files = {"train": sums["train"]}
        test_files = {"test": sums["test"]}

    data = HandMade(root=str(tmp_path)).load()
    assert data.num_classes == len(data.class_names) == 20
    assert data.train.targets.tolist() == coarse.tolist()
    assert data.test.targets.tolist() == coarse[150:160].tolist()
    assert data.fine_labels["train"].tolist() == fine.tolist()
    assert data.fine_labels["test"].tolist() == fine[150:160].tolist()
