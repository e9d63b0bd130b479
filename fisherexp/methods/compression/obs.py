"""Optimal Brain Surgeon on stored gradients: saliency, compensation by the weights that stay, and the look for rows.

Hassibi, Stork 1993; as in WoodFisher (Singh, Alistarh 2020, arXiv 2004.14340) and M-FAC (arXiv 2107.03356), with the
damped empirical Fisher F = λ I + G^T G / m of m gradients in place of the Hessian, at the weights w that are left:

    saliency     ρ_p = w_p² / (2 [F^-1]_pp)                                   drop the smallest, all at once
    individual   w ← w + F^-1 q,   q_p = -w_p / [F^-1]_pp on the dropped Q     sum of single-weight updates (published)
    group        w_K ← w_K + F_KK^-1 F_KQ w_Q                                  the least squares update for all of Q

and exact zeros on Q. The group update needs no inverse of [F^-1]_QQ: F_KQ w_Q = G_K^T (G_Q w_Q) / m is a combination of
the rows of the kept columns, for which Woodbury's solution has no difference to take.

Where the official code differs: it stores one gradient less than the m it divides by, and leaves the last row zero.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.curvature import LowRankFisher, batch_gradients
from fisherexp.data.batch import Batch
from fisherexp.methods.compression.pruning import Pruning
from fisherexp.methods.structured import GradientRows
from fisherexp.scenarios.setting import Setting


class Blocks:
    """A block-diagonal F with its damping: one low-rank Fisher for every `size` consecutive coordinates."""

    def __init__(self, gradients: Tensor, damping: float, size: int) -> None:
        self.parts = [LowRankFisher(part.contiguous()) for part in gradients.split(size, dim=1)]
        self.damping = damping

    def inverse_diagonal(self) -> Tensor:
        return torch.cat([part.inverse_diagonal(self.damping) for part in self.parts])

    def solve(self, x: Tensor) -> Tensor:
        split = x.split([part.dim for part in self.parts])
        return torch.cat([part.solve(values, self.damping) for part, values in zip(self.parts, split, strict=True)])


def saliency(weights: Tensor, inverse_diagonal: Tensor) -> Tensor:
    """w² / (2 [F^-1]_pp), elementwise: the loss of dropping one weight and compensating for it."""
    return weights.square() / (2 * inverse_diagonal)


def individual_update(weights: Tensor, dropped: Tensor, fisher: Any, inverse_diagonal: Tensor) -> Tensor:
    """The weights (n,) after the sum of the single-weight updates for the indices `dropped`, with zeros there.

    fisher: F of these weights, that is, something with `solve`.
    """
    q = torch.zeros_like(weights)
    q[dropped] = -weights[dropped] / inverse_diagonal[dropped]
    return (weights + fisher.solve(q)).index_fill(0, dropped, 0.0)


def group_update(weights: Tensor, dropped: Tensor, gradients: Tensor, damping: float) -> Tensor:
    """The weights (n,) after the exact update for all `dropped` together, with zeros there. gradients: (m, n)."""
    kept = torch.ones_like(weights, dtype=torch.bool).index_fill(0, dropped, False)
    updated = torch.zeros_like(weights)
    if kept.any():
        along_rows = gradients[:, dropped] @ weights[dropped] / len(gradients)
        updated[kept] = weights[kept] + LowRankFisher(gradients[:, kept]).solve_rows(along_rows, damping)
    return updated


class ObsPruning(Pruning):
    """Looks at gradients of the mean loss of small batches, in eval mode; every sub-step draws other samples.

    gradients: m, rows of G. gradient_batch: samples of one row (1: single samples). damping: λ. The rest as in Pruning.
    """

    def __init__(
        self,
        model: nn.Module,
        recomputations: Count,
        gradients: Count,
        gradient_batch: Count,
        damping: Positive,
        **options: Any,
    ) -> None:
        super().__init__(model, recomputations=recomputations, **options)
        self.gradients, self.gradient_batch, self.damping = gradients, gradient_batch, damping
        self.rows: list[Tensor] = []

    def to_look_at(self, setting: Setting) -> tuple[list[Any], list[int]]:
        return GradientRows(self.gradients, self.gradient_batch, self.damping).passes(setting, "train")

    def on_train_start(self) -> None:
        super().on_train_start()
        self.rows = [row.to(self.device) for row in self.rows]  # those of a saved state

    def look(self, batch: Batch) -> None:
        left = self.gradients - len(self.rows)
        rows = torch.arange(batch.size).split(self.gradient_batch)[:left]
        batches = [batch.map(lambda tensor, some=some: tensor[some.to(tensor.device)])[:2] for some in rows]
        self.rows += batch_gradients(self.model, self.objective.likelihood, batches, self.weights)

    def prune(self, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
        rows = torch.stack(self.rows)[:, self.kept]
        self.rows = []
        return self.surgery(weights, rows, count)

    def surgery(self, weights: Tensor, gradients: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """New weights (n,) and the `count` indices dropped, from gradients (m, n) of the weights that are left."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["rows"] = self.rows

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.rows = checkpoint["rows"]
