"""The 8×8 handwritten digits that come with scikit-learn (Alpaydin, Kaynak 1998, UCI): no download."""

import functools

import numpy as np
import torch

from fisherexp.data.image_data import ImageData
from fisherexp.data.tensors import TensorSet

TRAIN_SIZE = 1200


@functools.cache
def _everything() -> TensorSet:
    """All images in the order of the file, whose reading takes longer than many a test's training; nobody may write in
    them."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    return TensorSet(images, torch.from_numpy(bunch.target).long())


class Digits(ImageData):
    """1797 images, split 1200/597 by one fixed shuffle that no option changes (NumPy's legacy generator with
    seed 0, whose stream is frozen). Intensities 0…16 are scaled to 0…255. Options: see ImageData.
    """

    title = "scikit-learn digits, 8×8"
    num_classes = 10
    input_shape = (1, 8, 8)
    class_names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    mean = [0.3058]
    std = [0.3755]
    mirrors = False

    def read(self) -> tuple[TensorSet, TensorSet]:
        everything = _everything()
        order = np.random.RandomState(0).permutation(len(everything))
        return everything.subset(order[:TRAIN_SIZE]), everything.subset(order[TRAIN_SIZE:])
