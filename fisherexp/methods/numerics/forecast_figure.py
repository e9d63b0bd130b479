"""Errors of binaries' parameters over frequency, by observatory, eclipsing ones told apart."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.ticker import NullLocator
from torch import Tensor

from fisherexp.figures import BLUE, GREEN, ORANGE, canvas, save_both
from fisherexp.problems.white_dwarf_binaries import DETECTABLE, FACE_ON

PANELS = {
    "log_amplitude": "error of log amplitude",
    "frequency": "error of frequency (1/T)",
    "sky_area": "sky area (deg²)",
    "cos_i": "error of cos i",
}
LOOKS = {"lisa": ("LISA", BLUE), "tianqin": ("TianQin", ORANGE), "joint": ("both", GREEN)}


def draw(binaries: Mapping[str, Tensor], found: Mapping[str, Mapping[str, Tensor]], stem: Path) -> None:
    """Of binaries that are detected and not seen face-on, with medians as lines. binaries: f in Hz, cos_i, eclipsing,
    (n,); found: for each observatory, name -> (n,)."""
    figure, axes = canvas(2, 2, (7.2, 5.4), sharex=True)
    f, eclipsing = 1e3 * binaries["f"], binaries["eclipsing"] > 0
    size = 9 if len(f) <= 1000 else 3
    for detector, errors in found.items():
        label, color = LOOKS[detector]
        detected = errors["snr"] > DETECTABLE
        label = f"{label}: {int(detected.sum())}, {int((detected & eclipsing).sum())} eclipsing"
        shown = detected & (binaries["cos_i"].abs() < FACE_ON)
        ringed = shown & eclipsing
        for place, name in zip(axes.flat, PANELS, strict=True):
            place.scatter(f[shown], errors[name][shown], s=size, color=color, alpha=0.4, linewidths=0)
            look = {"facecolors": "none", "edgecolors": color, "linewidths": 0.5, "alpha": 0.6}
            place.scatter(f[ringed], errors[name][ringed], s=4 * size, **look)
            place.plot(*medians(f[shown], errors[name][shown]), color=color, label=label)
    for place, title in zip(axes.flat, PANELS.values(), strict=True):
        place.set(xscale="log", yscale="log", title=title)
        place.title.set_fontsize("small")
        place.xaxis.set_minor_locator(NullLocator())
        place.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    for place in axes[1]:
        place.set_xlabel("frequency (mHz)")
    axes[0, 0].legend(frameon=False, fontsize="x-small", title="detected (rings: eclipsing)", title_fontsize="x-small")
    save_both(figure, stem)


def medians(f: Tensor, values: Tensor) -> tuple[list[float], list[float]]:
    """Of neighbors in frequency, a dozen groups of at least ten: those of f and of the values."""
    order = f.argsort()
    groups = order.chunk(max(1, min(12, len(f) // 10))) if len(f) else ()
    return [float(f[group].median()) for group in groups], [float(values[group].median()) for group in groups]
