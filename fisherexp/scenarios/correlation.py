"""Orders in which neighbors have the same label, as in a video or on a walk through a town."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.seeds import derive, generator

LEAST = 10  # images in the smallest chunk, as published
ATTEMPTS = 10_000
SLOTS = 100  # at most so many in RoTTA's streams


def correlated_order(
    labels: Tensor, concentration: float, num_classes: int, *key: str | int, sampler: Literal["note", "rotta"] = "note"
) -> Tensor:
    """A permutation (n,) of the samples in which neighbors tend to have the same label, the more the smaller the
    concentration; 0 sorts by label. See the functions below."""
    if concentration == 0:
        return sorted_order(labels, *key)
    return {"note": dirichlet_order, "rotta": slotted_order}[sampler](labels, concentration, num_classes, *key)


def dirichlet_order(labels: Tensor, concentration: float, num_classes: int, *key: str | int) -> Tensor:
    """A permutation (n,) of the samples, correlated by label as in NOTE (Gong et al., NeurIPS 2022, arXiv 2208.05117).

    The stream has as many chunks as classes. Each class is spread over the chunks in proportions drawn from a symmetric
    Dirichlet distribution of that concentration, leaving out chunks that are full; within a chunk the classes come one
    after the other, in random order. The draw is repeated until no chunk is nearly empty: fewer than LEAST samples,
    or than half of an even share in a short stream. key: seeds the draws.
    Raises ValueError when the concentration is too small for that.
    """
    random, labels = np.random.default_rng(derive("dirichlet", *key)), labels.numpy()
    total, chunks = len(labels), num_classes
    least = min(LEAST, total // (2 * chunks))
    for _ in range(ATTEMPTS):
        shares = _spread(labels, concentration, chunks, num_classes, random)
        if shares is not None and min(sum(map(len, chunk)) for chunk in shares) >= least:
            ordered = [chunk[label] for chunk in shares for label in random.permutation(num_classes)]
            return torch.from_numpy(np.concatenate(ordered))
    raise ValueError(
        f"no chunk of the stream may be nearly empty, and with a Dirichlet concentration of {concentration} "
        f"{ATTEMPTS} draws left one so; take a larger one"
    )


def slotted_order(labels: Tensor, concentration: float, num_classes: int, *key: str | int) -> Tensor:
    """A permutation (n,) of the samples, correlated by label as in RoTTA's code (Yuan, Xie, Li, CVPR 2023,
    arXiv 2303.13899).

    As `dirichlet_order`, but no slot is ever full, none is drawn again for being nearly empty, samples of a class keep
    their order, and there are at most SLOTS slots. key: seeds the draws.
    """
    random, labels, slots = np.random.default_rng(derive("slots", *key)), labels.numpy(), min(num_classes, SLOTS)
    shares: list[list[np.ndarray]] = [[] for _ in range(slots)]
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        cuts = (np.cumsum(random.dirichlet(np.full(slots, concentration)))[:-1] * len(members)).astype(int)
        for slot, part in zip(shares, np.split(members, cuts), strict=True):
            slot.append(part)
    return torch.from_numpy(
        np.concatenate([slot[label] for slot in shares for label in random.permutation(num_classes)])
    )


def sorted_order(labels: Tensor, *key: str | int) -> Tensor:
    """A permutation (n,) of the samples: class after class, each shuffled, as in the code of Marsden et al. (WACV 2024,
    arXiv 2306.00650) unless told otherwise."""
    shuffled = torch.randperm(len(labels), generator=generator("sorted", *key))
    return shuffled[labels[shuffled].argsort(stable=True)]


def effective_classes(labels: Tensor, batch_size: int) -> float:
    """How many classes a batch of a stream with labels (n,) has, counted by their frequencies p: mean of exp H(p)."""
    counts = torch.stack([batch.bincount(minlength=int(labels.max()) + 1) for batch in labels.split(batch_size)])
    p = counts / counts.sum(1, keepdim=True)
    return torch.special.entr(p).sum(1).exp().mean().item()


def _spread(
    labels: np.ndarray, concentration: float, chunks: int, num_classes: int, random: np.random.Generator
) -> list[list[np.ndarray]] | None:
    """For each chunk, its samples of each class; None if all that was drawn belongs into full chunks."""
    sizes = np.zeros(chunks)
    shares: list[list[np.ndarray]] = [[] for _ in range(chunks)]
    for label in range(num_classes):
        members = random.permutation(np.flatnonzero(labels == label))
        proportions = random.dirichlet(np.full(chunks, concentration)) * (sizes < len(labels) / chunks)
        if not proportions.sum() > 0:
            return None
        cuts = (np.cumsum(proportions / proportions.sum()) * len(members)).astype(int)[:-1]
        for chunk, part in enumerate(np.split(members, cuts)):
            shares[chunk].append(part)
            sizes[chunk] += len(part)
    return shares
