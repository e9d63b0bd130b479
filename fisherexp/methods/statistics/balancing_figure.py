"""Ratings as they were chosen, as they are weighted, and as they are of random pairs; the error as the fit goes on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from fisherexp.figures import BLUE, GREEN, ORANGE, canvas, save_both

BINS = 5


def draw(chosen: Tensor, weights: Tensor, uniform: Tensor, errors: Sequence[float], stem: Path) -> None:
    """chosen: ratings (n,) with weights (n,). uniform: ratings of random pairs (m,). errors: MSE on them, by step."""
    figure, (left, right) = canvas(1, 2, (7.4, 3.0))
    edges = np.linspace(
        float(min(chosen.min(), uniform.min())), float(max(chosen.max(), uniform.max())) + 1e-9, BINS + 1
    )
    kinds = (
        (chosen, None, "chosen", ORANGE),
        (chosen, weights, "weighted", BLUE),
        (uniform, None, "random pairs", GREEN),
    )
    width = (edges[1] - edges[0]) / 4
    for number, (ratings, weight, name, color) in enumerate(kinds):
        counts, _ = np.histogram(ratings.numpy(), edges, weights=None if weight is None else weight.numpy())
        places = edges[:-1] + (number + 1) * width
        left.bar(places, counts / counts.sum(), width, color=color, label=name)
    left.set(xlabel="rating", ylabel="share")
    left.legend(frameon=False, fontsize="small")
    right.plot(range(1, len(errors) + 1), errors, color=BLUE)
    right.set(xlabel="step", ylabel="mean sq. error on random pairs")
    save_both(figure, stem)
