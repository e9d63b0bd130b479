"""The user's own images and labels in one .npz file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fisherexp.config.types import MOST_CLASSES, ClassCount
from fisherexp.data.errors import DataError, reason_of
from fisherexp.data.image_data import ImageData
from fisherexp.data.tensors import TensorSet

CHANNELS = (1, 3, 4)


class Arrays(ImageData):
    """An .npz file with train_images, train_labels, test_images and test_labels.

    path: of the file; absolute, or relative to the working directory or the data folder.
    num_classes: by default the highest label + 1.
    Further options: see ImageData.

    Images are uint8 or floats in [0, 1] (kept in 256 steps), of shape (N, H, W), (N, H, W, C) or (N, C, H, W)
    with 1, 3 or 4 channels. Labels are integers 0…num_classes - 1 of any type, of shape (N,) or (N, 1). Mean and
    standard deviation are those of the training images. Everything else raises a DataError that says what is wrong.
    """

    title = "arrays"

    def __init__(self, path: str, num_classes: ClassCount | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.path = path
        self.num_classes = num_classes

    def read(self) -> tuple[TensorSet, TensorSet]:
        path = self.locate(self.path)
        arrays = _open(path)
        sets = []
        for split in ("train", "test"):
            images = _images(arrays[f"{split}_images"], f"{path}: {split}_images")
            labels = _labels(arrays[f"{split}_labels"], f"{path}: {split}_labels", len(images))
            sets.append(TensorSet(images, torch.from_numpy(labels)))
        shapes = [tuple(images.inputs.shape[1:]) for images in sets]
        if shapes[0] != shapes[1]:
            raise DataError(f"{path}: train_images are {shapes[0]} (C, H, W) but test_images are {shapes[1]}")
        lowest = min(int(images.targets.min()) for images in sets)
        if self.num_classes is None:
            if lowest == 1:
                remedy = "subtract 1, or set data.num_classes where class 0 is merely empty"
                raise DataError(f"{path}: labels begin at 1, but 0…num_classes - 1 is expected; {remedy}")
            self.num_classes = 1 + max(int(images.targets.max()) for images in sets)
            if self.num_classes > MOST_CLASSES:
                reason = f"labels go up to {self.num_classes - 1}, and a network has an output for each number below"
                raise DataError(f"{path}: {reason}; number the classes 0, 1, …")
        for split, labels in zip(("train", "test"), (images.targets for images in sets), strict=True):
            wrong = labels[(labels < 0) | (labels >= self.num_classes)]
            if len(wrong):
                allowed, example = f"0…{self.num_classes - 1}", int(wrong[0])
                shifted = lowest == 1 and wrong.eq(self.num_classes).all()
                remedy = "subtract 1" if shifted else "leave out samples without a label" if example < 0 else None
                count = f"{len(wrong)} are not, e.g. {example}{'; ' + remedy if remedy else ''}"
                raise DataError(f"{path}: {split}_labels must be in {allowed}; {count}")
        self.input_shape = shapes[0]
        self.class_names = [str(label) for label in range(self.num_classes)]
        self.mean, self.std = channel_statistics(sets[0].inputs)
        return tuple(sets)


def channel_statistics(images: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), for intensities in [0, 1]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):  # by histogram: exact, and no float copy of all the images
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double() / images[:, channel].numel()
        mean.append(float(share @ levels))
        std.append(max(float(share @ (levels - mean[-1]) ** 2) ** 0.5, 1 / 255))  # an empty channel stays finite
    return mean, std


def _open(path: Path) -> dict[str, np.ndarray]:
    names = [f"{split}_{kind}" for split in ("train", "test") for kind in ("images", "labels")]
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"{path} holds one array; an .npz file with {', '.join(names)} is expected")
        with file:
            missing = [name for name in names if name not in file]
            if missing:
                there = " ".join(", ".join(file.files).split()) or "nothing"
                raise DataError(f"{path} has no {' and no '.join(missing)}; it has {there}")
            return {name: file[name] for name in names}
    except DataError:
        raise
    except Exception as error:  # NumPy and zipfile let through whatever a damaged file makes them stumble over
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {reason_of(error)}") from None


def _images(images: np.ndarray, name: str) -> torch.Tensor:
    """uint8 (N, C, H, W), contiguous. `name` is for messages."""
    if images.size == 0:
        raise DataError(f"{name} is empty: shape {images.shape}")
    if np.issubdtype(images.dtype, np.floating):
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise DataError(f"{name} are floats from {low:g} to {high:g}; floats must be in [0, 1], or save uint8")
        images = np.rint(images * 255).astype(np.uint8)
    elif images.dtype != np.uint8:
        raise DataError(f"{name} have type {images.dtype}; uint8, or floats in [0, 1], are expected")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in CHANNELS and images.shape[1] not in CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or images.shape[1] not in CHANNELS or images.shape[3] in CHANNELS:
        raise DataError(
            f"{name} have shape {images.shape}; (N, H, W), or (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4"
        )
    return torch.from_numpy(np.ascontiguousarray(images))


def _labels(labels: np.ndarray, name: str, count: int) -> np.ndarray:
    """int64 (count,). `name` is for messages."""
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,):
        one_hot = labels.ndim == 2 and len(labels) == count and np.array_equal(labels.sum(1), np.ones(count))
        remedy = "; they are one-hot: save labels.argmax(1)" if one_hot else ""
        raise DataError(
            f"{name} have shape {labels.shape}, but there are {count} images; ({count},) is expected{remedy}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        whole = np.issubdtype(labels.dtype, np.floating) and np.array_equal(labels, np.rint(labels))
        remedy = "; these are whole: save labels.astype(int)" if whole else ""
        raise DataError(f"{name} have type {labels.dtype}; integers are expected{remedy}")
    return labels.astype(np.int64)
