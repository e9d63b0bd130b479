"""Sparse adapters: some entries of a weight are trained, the others stay. Which ones, a mask says.

    W' = M ∘ E + (1 - M) ∘ W,   M a mask (m, n), E = M ∘ W at the start

E holds the entries themselves, not what was added to them: an optimizer's weight decay pulls them to zero as it would
in training all of W, and with a full mask the steps are those of training W. Where the mask stays, E is a list of the
entries (`Listed`). Where it changes (`Rechosen`), E is as large as W, and so are its gradient and an optimizer's
moments; outside the mask it is zero.

`random_entries` is SHiRA's mask (Bhardwaj et al., NeurIPS 2024, arXiv 2406.13175), `largest` and `smallest` those by
magnitude, at the budget r (m + n) of a LoRA of rank r.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.training import adapters


def budget(weight: Tensor, rank: int) -> int:
    """min(r (m + n), m n): how many numbers a LoRA of that rank trains. Raises ValueError for a rank below 1."""
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1")
    return min(rank * sum(weight.shape), weight.numel())


def largest(values: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest values."""
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[values.flatten().topk(count).indices] = True
    return mask.view_as(values)


def smallest(values: Tensor, count: int) -> Tensor:
    """Mask of the `count` smallest values."""
    return largest(-values, count)


def random_entries(values: Tensor, count: int) -> Tensor:
    """Mask of `count` entries drawn without replacement."""
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[torch.randperm(values.numel())[:count].to(values.device)] = True
    return mask.view_as(values)


class Sparse(Adapter):
    """weight: W (m, n). mask: which entries are trained, bool (m, n)."""

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.entries = nn.Parameter(torch.where(mask, weight, 0))

    def weight(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, self.entries, weight)

    def num_trainable(self) -> int:
        return int(self.mask.sum())


class Listed(Adapter):
    """The same for a mask that never changes: `entries` (1, k) are those in the mask, row by row. They have two
    dimensions so that a recipe which decays matrices alone decays them."""

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", mask.flatten().nonzero().flatten())
        self.entries = nn.Parameter(weight.flatten()[self.places][None])
        self.shape = weight.shape

    def weight(self, weight: Tensor) -> Tensor:
        return weight.flatten().scatter(0, self.places, self.entries[0]).view(self.shape)

    @property
    def mask(self) -> Tensor:
        """Which entries are trained, bool (m, n)."""
        mask = torch.zeros(self.shape.numel(), dtype=torch.bool, device=self.places.device)
        mask[self.places] = True
        return mask.view(self.shape)


class RandomMask(Listed):
    """weight: W (m, n). rank: r. Trains min(r (m + n), m n) random entries. Raises ValueError for a rank below 1."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__(weight, random_entries(weight, budget(weight, rank)))


class MagnitudeMask(Listed):
    """weight: W (m, n). rank: r. Trains the min(r (m + n), m n) largest, or smallest, |W|. ValueError as above."""

    def __init__(self, weight: Tensor, rank: int, select: Literal["largest", "smallest"] = "largest") -> None:
        choose = largest if select == "largest" else smallest
        super().__init__(weight, choose(weight.abs(), budget(weight, rank)))


class Rechosen(Sparse):
    """A mask that changes in training. Entries that leave it keep what they have learned."""

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        super().__init__(weight, mask)
        self.register_buffer("left", torch.zeros_like(weight))  # of the entries that have left
        self.register_buffer("gone", torch.zeros_like(mask))  # which these are

    def weight(self, weight: Tensor) -> Tensor:
        return super().weight(torch.where(self.gone, self.left, weight))

    @torch.no_grad()
    def rechoose(self, mask: Tensor, weight: Tensor) -> None:
        """Train the entries of another mask from here on; W' does not change."""
        now = self.weight(weight)
        self.gone.copy_((self.gone | self.mask) & ~mask)
        self.left.copy_(torch.where(self.gone, now, 0))
        self.entries.copy_(torch.where(mask, now, 0))
        self.mask.copy_(mask)


@torch.no_grad()
def forget_outside(optimizer: Optimizer, model: nn.Module) -> None:
    """Zero what the optimizer remembers of entries outside the masks of a model's adapters, once masks have changed.

    Entries in the old and the new mask keep their moments, new ones begin with none; the count of steps goes on.
    """
    for adapter in adapters(model):
        if isinstance(adapter, Sparse):
            for moment in optimizer.state.get(adapter.entries, {}).values():
                if isinstance(moment, Tensor) and moment.shape == adapter.mask.shape:
                    moment.mul_(adapter.mask)
