"""What makes another task of the same data: a fixed change of every image, its labels kept, or of every text.

plain, inverted (gray values), mirrored (left-right), rotated_<degrees> (anticlockwise), permuted_<number> (a fixed
permutation of the pixels, as in Goodfellow et al. 2013, arXiv 1312.6211), or the name of a corruption. Of reports:
summary (findings to impression, as they come) and gap_sentences (see there).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from fisherexp.config.types import Corruption
from fisherexp.data.augment import rotate
from fisherexp.data.corruptions.generated import corrupted
from fisherexp.data.gap_sentences import gap_sentences
from fisherexp.data.store import Store
from fisherexp.data.tensors import TensorSet
from fisherexp.seeds import derive, generator

KNOWN = "plain, inverted, mirrored, rotated_<degrees>, permuted_<number> and the names of corruptions"
OF_TEXT = {"gap_sentences": gap_sentences, "summary": lambda reports: reports}


def transform(task: str, *, severity: int = 5, part: str = "", store: Store | None = None) -> Callable:
    """The change named `task`, from TensorSet to TensorSet of the same length and order.

    severity: of a corruption. part: of the data; corruptions draw anew for each, so that noise that was trained on is
    not met again in a test. The other changes are the same for all parts and seeds. store: keeps corrupted images.
    Raises ValueError for names of no task.
    """
    pixelwise = {"plain": lambda images: images, "inverted": lambda images: 255 - images, "mirrored": mirrored}
    kind, _, number = task.partition("_")
    if task in OF_TEXT:
        return OF_TEXT[task]
    if task in pixelwise:
        return partial(_of_images, pixelwise[task])
    if kind == "rotated" and re.fullmatch(r"\d+(\.\d+)?", number):
        return partial(_of_images, partial(rotated, degrees=float(number)))
    if kind == "permuted" and number.isdecimal():
        return partial(_of_images, partial(permuted, number=int(number)))
    if task in get_args(Corruption):
        options = {"name": task, "severity": severity, "seed": derive("task", part), "store": store}
        return partial(corrupted, **options)
    raise ValueError(f"'{task}' is no task; there are {KNOWN}; of reports {' and '.join(OF_TEXT)}")


def refuse_foreign(tasks: list[str], title: str, of_text: tuple[str, ...] | None) -> None:
    """Raises ValueError for a task that the data called `title` do not have. of_text: those they have; None: images."""
    for task in tasks:
        if task in OF_TEXT if of_text is None else task not in of_text:
            known = KNOWN if of_text is None else ", ".join(of_text) or "none"
            raise ValueError(f"scenario.tasks: '{task}' is no task of {title}; there are {known}")


def mirrored(images: Tensor) -> Tensor:
    return images.flip(-1)


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Images (N, C, H, W) turned anticlockwise about their center: square ones by right angles without resampling."""
    if degrees % 90 == 0 and (images.shape[-1] == images.shape[-2] or degrees % 180 == 0):
        return torch.rot90(images, int(degrees // 90), (-2, -1))
    return rotate(images, torch.full((len(images),), degrees, device=images.device))


def permuted(images: Tensor, number: int) -> Tensor:
    """The pixels of images (N, C, H, W) in the order that belongs to `number`, the same in every channel."""
    pixels = images.flatten(2)
    order = torch.randperm(pixels.shape[-1], generator=generator("permutation", number)).to(images.device)
    return pixels[..., order].view_as(images)


def _of_images(change: Callable[[Tensor], Tensor], images: TensorSet) -> TensorSet:
    return replace(images, inputs=change(images.inputs).contiguous())
