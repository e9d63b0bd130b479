"""Two panels of what a training did to weight matrices: spectra of the change; new directions beside old ones."""

from pathlib import Path
from typing import Any

from fisherexp.figures import GRAY, canvas, save_both

NAMED = 8  # layers of which a legend is still readable


def draw(layers: dict[str, dict[str, Any]], epsilon: float, stem: Path) -> None:
    """The largest singular values of ΔW over the largest of W, and the largest cosine of each leading direction of W'
    with one of W, an intruder below ε; a line for each layer, from dark to light. As `stem`.png and `stem`.pdf."""
    from matplotlib import colormaps

    figure, (values, cosines) = canvas(1, 2, (8.4, 3.6))
    for place, (name, found) in enumerate(layers.items()):
        color = colormaps["viridis"](0.9 * place / max(1, len(layers) - 1))
        places = range(1, len(found["cosines"]) + 1)
        relative = [value / found["values_before"][0] for value in found["values_change"][: found["rank"]]]
        values.plot(places[: len(relative)], relative, "o-", color=color, markersize=3, linewidth=1.2, label=name)
        cosines.plot(places, found["cosines"], "o-", color=color, markersize=3, linewidth=1.2)
    if any(found["rank"] for found in layers.values()):
        values.set_yscale("log")
    values.set(xlabel="singular value of ΔW", ylabel="over the largest of W")
    cosines.axhline(epsilon, color=GRAY, linestyle="--", linewidth=1)
    cosines.set(xlabel="left singular vector of W'", ylabel="largest cosine with one of W", ylim=(0, 1.03))
    cosines.set_title(f"intruders: {sum(found['intruders'] for found in layers.values())}", fontsize=10)
    if len(layers) <= NAMED:
        values.legend(frameon=False, fontsize=7)
    save_both(figure, stem)
