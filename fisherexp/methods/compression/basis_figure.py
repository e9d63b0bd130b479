"""Relative errors of layers whose bases are shared, beside those of separate decompositions of as many numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fisherexp.figures import GRAY, MOST_NAMES, canvas, named_every, save_both


def draw(layers: Mapping[str, Mapping[str, Any]], stem: Path) -> None:
    """A dot for each layer, of its cluster's color; what is stored alone is gray. As `stem`.png and `stem`.pdf."""
    from matplotlib import colormaps

    of_clusters = [layer["cluster"] for layer in layers.values()]
    several = [number for number in dict.fromkeys(of_clusters) if of_clusters.count(number) > 1]
    every = named_every(len(layers))
    figure, axes = canvas(size=(6.4, max(2.4, 0.22 * min(len(layers), MOST_NAMES))))
    for place, layer in enumerate(layers.values()):
        shared = layer["cluster"] in several
        color = colormaps["tab20"](several.index(layer["cluster"]) % 20) if shared else GRAY
        axes.plot(layer["relative_error"], place, "o", color=color, markersize=6 / every)
        axes.plot(layer["separate_error"], place, "|", color="black", markersize=10 / every)
    axes.plot([], [], "o", color=GRAY, label="shared basis (gray: a layer alone)")
    axes.plot([], [], "|", color="black", label="separate, as many numbers in all", linestyle="none", markersize=10)
    axes.set_yticks(range(0, len(layers), every), [*layers][::every], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="relative error", xlim=(-0.02, None))
    axes.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1))
    save_both(figure, stem)
