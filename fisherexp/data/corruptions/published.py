"""Corrupted sets as they were published: CIFAR-10-C and CIFAR-100-C in arrays, ImageNet-C in folders of files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.tensors import TensorSet


def published(folder: Path, name: str, severity: int, test: TensorSet | FileSet) -> TensorSet | FileSet:
    """The corrupted copy of the test set `test`, in its order.

    folder: with <name>.npy, the five severities of all images one after the other, (5 N, H, W, C), and labels.npy; or
    with <name>/<severity>/<class>/<file>, files named as those of the test set.
    Raises DataError, in one line, for what is missing or does not belong to this test set.
    """
    if (folder / f"{name}.npy").is_file():
        return _from_array(folder, name, severity, test)
    if (folder / name / str(severity)).is_dir():
        return _from_files(folder, name, severity, test)
    raise DataError(f"{folder} has neither {name}.npy nor a folder {name}/{severity}")


def _from_array(folder: Path, name: str, severity: int, test: TensorSet | FileSet) -> TensorSet:
    file, count = folder / f"{name}.npy", len(test)
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {name}.npy and labels.npy are needed: {' '.join(str(error).split())}") from None
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != 5 * count:
        raise DataError(f"{file} is {images.dtype} {images.shape}; uint8 (5·{count}, H, W, C) is expected")
    here = slice((severity - 1) * count, severity * count)
    if not np.array_equal(labels[here], test.targets.numpy()):
        raise DataError(f"{folder / 'labels.npy'} are not the labels of this test set, in its order")
    tensor = torch.from_numpy(images[here].transpose(0, 3, 1, 2).copy())
    if isinstance(test, TensorSet) and tensor.shape != test.inputs.shape:
        raise DataError(f"{file} has images {tuple(tensor.shape[1:])}, the test set {tuple(test.inputs.shape[1:])}")
    return TensorSet(tensor, test.targets)


def _from_files(folder: Path, name: str, severity: int, test: TensorSet | FileSet) -> FileSet:
    if not isinstance(test, FileSet):
        raise DataError(f"{folder} holds image files: the data set must be one of files, too (data.in_memory=false)")
    paths = [f"{name}/{severity}/{path}" for path in test.paths]
    missing = next((path for path in paths if not (folder / path).is_file()), None)
    if missing:
        raise DataError(f"{folder} has no {missing}, but the test set has its original")
    return replace(test, folder=folder, paths=paths, tags={})
