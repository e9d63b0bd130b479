"""Deviance of the folds and coefficients along a path of penalties."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fisherexp.figures import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, canvas, save_both

COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY)


def draw(strengths: np.ndarray, deviances: np.ndarray, path: Sequence[np.ndarray], best: int, stem: Path) -> None:
    """strengths: (P,). deviances: (P, folds). path: a matrix (d, K) for each, a color for each class."""
    figure, (left, right) = canvas(1, 2, (7.6, 3.2))
    errors = deviances.std(1, ddof=1) / np.sqrt(deviances.shape[1])
    left.errorbar(strengths, deviances.mean(1), errors, color=BLUE, marker=".", linewidth=1, capsize=2)
    left.set(xlabel="penalty", ylabel="deviance of the folds", xscale="log")
    weights = np.stack(path)
    for label in range(weights.shape[2]):
        right.plot(strengths, weights[:, :, label], color=COLORS[label % len(COLORS)], linewidth=0.8)
    right.set(xlabel="penalty", ylabel="coefficients, a color for each class", xscale="log")
    for axes in (left, right):
        axes.axvline(strengths[best], color=GRAY, linestyle=":")
        axes.invert_xaxis()
    save_both(figure, stem)
