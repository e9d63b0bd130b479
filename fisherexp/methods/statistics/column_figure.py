"""Coefficients and scores of columns, beside the truth where it is known."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fisherexp.figures import BLUE, GRAY, GREEN, ORANGE, canvas, save_both


def draw_fit(objectives: Sequence[float], coefficients: Tensor, truth: Tensor | None, stem: Path) -> None:
    """objectives: by iteration. coefficients, truth: (d,)."""
    figure, (left, right) = canvas(1, 2, (7.6, 3.0))
    above = torch.tensor(objectives, dtype=torch.float64) - min(objectives)
    left.plot(range(1, len(objectives) + 1), above.clamp(min=1e-16), color=BLUE)
    left.set(xlabel="iteration", ylabel="objective above its least", yscale="log")
    if truth is not None:
        right.plot(truth, "o", color=ORANGE, markersize=6, fillstyle="none", label="truth")
    right.plot(coefficients, ".", color=BLUE, markersize=3, label="estimate")
    right.set(xlabel="column", ylabel="coefficient")
    right.legend(frameon=False)
    save_both(figure, stem)


def draw_scores(scores: Tensor, correlations: Tensor, truth: Tensor | None, stem: Path) -> None:
    """scores, correlations: (d,), of the same columns. truth: coefficients (d,)."""
    figure, axes = canvas(1, 1, (4.4, 3.4))
    true = torch.zeros(len(scores), dtype=torch.bool) if truth is None else truth != 0
    axes.plot(correlations[~true].abs(), scores[~true], ".", color=GRAY if true.any() else BLUE, label="others")
    if true.any():
        axes.plot(correlations[true].abs(), scores[true], "o", color=GREEN, label="columns that matter")
        axes.legend(frameon=False)
    axes.set(xlabel="absolute correlation", ylabel="mutual information (nats)")
    save_both(figure, stem)
