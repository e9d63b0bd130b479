"""A quantized matrix and low-rank factors of what it leaves, each found anew for what the other leaves, in turn.

    W ≈ Q + B A:   low rank first   B A ← factors of W - Q,   Q ← quantized(W - B A),   from Q = 0
                   quantized first  Q ← quantized(W - B A),   B A ← factors of W - Q,   from B A = 0

Low rank first is LQ-LoRA (arXiv 2311.12023) and SVDQuant (arXiv 2411.05007), quantized first LoftQ (arXiv 2310.08659).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .format import Format, Parts


class Iterate(NamedTuple):
    """Q as it is stored and as it decodes, (n, m), and B (n, r), A (r, m)."""

    parts: Parts
    quantized: Tensor
    up: Tensor
    down: Tensor


def iterates(
    weight: Tensor,
    form: Format,
    low_rank: Callable[[Tensor], tuple[Tensor, Tensor]],
    iterations: int,
    low_rank_first: bool = False,
) -> Iterator[Iterate]:
    """What each iteration finds. low_rank: the factors (B, A) of a matrix."""
    quantized, product = torch.zeros_like(weight), torch.zeros_like(weight)
    for _ in range(iterations):
        if low_rank_first:
            up, down = low_rank(weight - quantized)
        rest = weight - (up @ down if low_rank_first else product)
        parts = form.encode(rest)
        quantized = form.decode(parts, rest.shape).to(weight)
        if not low_rank_first:
            up, down = low_rank(weight - quantized)
            product = up @ down
        yield Iterate(parts, quantized, up, down)


def alternate(
    weight: Tensor,
    form: Format,
    low_rank: Callable[[Tensor], tuple[Tensor, Tensor]],
    iterations: int,
    error: Callable[[Iterate], float] | None = None,
    low_rank_first: bool = False,
) -> tuple[Iterate, list[float]]:
    """The best of at most so many iterates by `error`, and the errors of all; it stops where the error does not fall.
    Without `error` all iterations are made and the last one counts.
    """
    best, errors = None, []
    for found in iterates(weight, form, low_rank, iterations, low_rank_first):
        if error is not None:
            errors.append(error(found))
            if best is not None and errors[-1] >= errors[-2]:
                break
        best = found
    return best, errors
