"""Cost per image of this project's data path and of torchvision's per-sample PIL pipeline.

    OMP_NUM_THREADS=1 python scripts/bench/data_path.py

Both end with normalized float images, and run in this process, on one thread, in alternation; the ratio is
the median over rounds. Exits with 1 when the path of 28×28 images is less than 50 times cheaper.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from fisherexp.data.tensors import TensorLoader, TensorSet
from fisherexp.models.classifier import Classifier

GOAL = 50
ROUNDS = 9
BATCH = 128


class PerSample(Dataset):
    """The customary data set: each image becomes a PIL image and goes through `transform`."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable) -> None:
        self.images, self.labels, self.transform = (
            [to_pil_image(image) for image in images],
            labels.tolist(),
            transform,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(self.images[index].copy()), self.labels[index]


def ours(images: torch.Tensor, labels: torch.Tensor, augment: str, mean, std) -> Iterable:
    normalize = Classifier(torch.nn.Identity(), 1, 1, mean, std).normalize
    for batch in TensorLoader(TensorSet(images, labels), BATCH, shuffle=True, augment=augment):
        yield normalize(batch.inputs), batch.targets


def per_image(batches: Iterable) -> float:
    """Microseconds per image."""
    start, count = time.perf_counter(), 0
    for _, labels in batches:
        count += len(labels)
    return (time.perf_counter() - start) / count * 1e6


def compare(title: str, shape: tuple[int, int, int], count: int, augment: str) -> float:
    """Prints one line; returns the median ratio, theirs / ours."""
    channels = shape[0]
    mean, std = [0.4] * channels, [0.3] * channels
    images, labels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8), torch.arange(count) % 10
    steps = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    if augment == "crop_flip":
        steps = [transforms.RandomCrop(shape[1], padding=4), transforms.RandomHorizontalFlip(), *steps]
    theirs = DataLoader(PerSample(images, labels, transforms.Compose(steps)), BATCH, shuffle=True)
    # Theirs is slow, so one epoch of it is a round; ours is repeated until it takes a measurable time.
    repeats = 20
    times = []
    for _ in range(ROUNDS + 1):
        a = per_image(theirs)
        b = per_image(batch for _ in range(repeats) for batch in ours(images, labels, augment, mean, std))
        times.append((a, b))
    times = times[1:]  # the first round warms up
    ratio = statistics.median(a / b for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{title:<28} per-sample PIL {a:7.1f} µs   batched tensors {b:6.2f} µs   ratio {ratio:6.1f}")
    return ratio


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = compare("28×28 gray", (1, 28, 28), 4096, "none")
    compare("32×32 color", (3, 32, 32), 4096, "none")
    compare("32×32 color, crop and flip", (3, 32, 32), 2048, "crop_flip")
    if plain < GOAL:
        sys.exit(f"the plain path is {plain:.1f} times cheaper; the goal is {GOAL}")


if __name__ == "__main__":
    main()
