"""Spectra of some layers with their fitted tails, and the exponents of all layers with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fisherexp.figures import BLUE, GRAY, GREEN, MOST_NAMES, ORANGE, canvas, named_every, save_both
from fisherexp.metrics.power_law import survival

COLORS = {"hill": BLUE, "ks": ORANGE, "farms": GREEN}
SHARE = 0.9  # of the eigenvalues that is shown: the smallest would take most of the axis
SHOWN = 5  # spectra, from the first layer to the last
TICKS = (1, 2, 3, 5, 10, 20, 50)  # of α


def draw(spectra: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]], stem: Path) -> None:
    """spectra: name -> `of(estimator)`, eigenvalues (N,). layers: name -> estimator -> figures. As `stem`.png, .pdf."""
    names = list(layers)
    chosen = [names[round(place * (len(names) - 1) / max(1, SHOWN - 1))] for place in range(SHOWN)]
    chosen = list(dict.fromkeys(chosen))
    every = named_every(len(names))
    height = max(3.4, 0.2 * min(len(names), MOST_NAMES))
    figure, axes = canvas(1, 1 + len(chosen), (3.6 + 2.8 * len(chosen), height), squeeze=False)
    exponents, *panels = axes[0]
    for place, (estimator, color) in enumerate(COLORS.items()):
        found = [layers[name][estimator] for name in names]
        alphas = [each["alpha"] for each in found]
        bounds = [[max(0.0, a - each["low"]) for a, each in zip(alphas, found, strict=True)]]
        bounds.append([max(0.0, each["high"] - a) for a, each in zip(alphas, found, strict=True)])
        heights = [number + 0.22 * (place - 1) for number in range(len(names))]
        look = {"markersize": 3.5 if every == 1 else 2, "elinewidth": 1.4 if every == 1 else 0.5}
        exponents.errorbar(alphas, heights, xerr=bounds, fmt="o", color=color, label=estimator, **look)
    nulls = [layers[name]["shuffled"] for name in names]
    exponents.plot(nulls, range(len(names)), "|", color=GRAY, markersize=10 / every, label="farms, shuffled")
    shown = without_common_parts(names)
    exponents.set_yticks(range(0, len(names), every), list(shown.values())[::every], fontsize=7)
    exponents.invert_yaxis()
    exponents.set(xscale="log", xlabel="exponent α")  # that of ks may be ten times the others
    ticks = [tick for tick in TICKS if exponents.get_xlim()[0] <= tick <= exponents.get_xlim()[1]]
    exponents.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    exponents.set_xticks([], minor=True)
    exponents.legend(frameon=False, fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    for panel, name in zip(panels, chosen, strict=True):
        for estimator in ("ks", "farms"):
            _spectrum(panel, spectra[name].of(estimator), layers[name][estimator], estimator)
        panel.set(xscale="log", yscale="log", xlabel="eigenvalue λ")
        panel.set_title(shown[name], fontsize=7)
    panels[0].set_ylabel("share of eigenvalues ≥ λ")
    panels[0].legend(frameon=False, fontsize=7)
    save_both(figure, stem)


def without_common_parts(names: Sequence[str]) -> dict[str, str]:
    """Names of layers without the modules that all of them lie in, which would take the room of what tells them
    apart."""
    parts = [name.split(".") for name in names]
    common = 0
    while len({tuple(each[: common + 1]) for each in parts}) == 1 and all(len(each) > common + 1 for each in parts):
        common += 1
    return {name: ".".join(each[common:]) for name, each in zip(names, parts, strict=True)}


def _spectrum(panel: Any, values: Tensor, found: Mapping[str, float], estimator: str) -> None:
    """The share of eigenvalues that is not smaller, and the power law from λ_min on."""
    rising, shares = survival(values)
    upper = shares <= SHARE
    panel.plot(rising[upper], shares[upper], ".", color=COLORS[estimator], markersize=2, alpha=0.5)
    tail = rising[rising >= found["x_min"] * (1 - 1e-9)]
    line = len(tail) / len(rising) * (tail / found["x_min"]) ** (1 - found["alpha"])
    panel.plot(tail, line, color=COLORS[estimator], linewidth=1.4, label=f"{estimator} tail")
