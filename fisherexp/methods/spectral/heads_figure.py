"""Scores of composition of all pairs of heads, and how the channels of one pair differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fisherexp.figures import BLUE, GRAY, canvas, save_both

NAMED = 24  # heads, beyond which names would lie on one another
TITLES = {"q": "queries", "k": "keys", "v": "values"}


def draw(matrices: Mapping[str, Tensor], outcome: Mapping[str, Any], stem: Path) -> None:
    """Three panels by mode, z over random matrices; one of channels. As `stem`.png and `stem`.pdf."""
    figure, axes = canvas(1, len(matrices) + 1, (3.4 * (len(matrices) + 1), 3.4))
    names, chance = outcome["heads"], outcome["random"]
    for panel, (mode, matrix) in zip(axes, matrices.items(), strict=False):
        above = ((matrix - chance["mean"]) / chance["sd"]).masked_fill(matrix == 0, float("nan"))
        limit = max(3.0, float(above[matrix > 0].abs().max()))
        image = panel.imshow(above.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        figure.colorbar(image, ax=panel, label="deviations above chance", shrink=0.7)
        panel.set(xlabel="later head, reading", title=TITLES[mode])
        if len(names) <= NAMED:
            panel.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            panel.set_yticks(range(len(names)), names, fontsize=7)
    axes[0].set_ylabel("head, writing")
    found = outcome["channels"]
    axes[-1].bar(range(1, len(found["score"]) + 1), found["score"], color=BLUE)
    axes[-1].axhline(chance["mean"], color=GRAY, linestyle="--", linewidth=1)
    axes[-1].set(xlabel="channel, by falling σ", ylabel="score", title=f"{found['first']} → keys of {found['second']}")
    save_both(figure, stem)
