"""Errors of binaries' parameters over frequency, eclipsing ones told apart."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.ticker import NullLocator
from torch import Tensor

from fisherexp.figures import BLUE, ORANGE, canvas, save_both

PANELS = {
    "log_amplitude": "error of log amplitude",
    "frequency": "error of frequency (1/T)",
    "sky_area": "sky area (deg²)",
    "cos_i": "error of cos i",
}


def draw(f: Tensor, eclipsing: Tensor, found: Mapping[str, Tensor], stem: Path) -> None:
    """f (n,) in Hz, found: name -> (n,), of binaries that are detected and not seen face-on."""
    figure, axes = canvas(2, 2, (7.2, 5.4), sharex=True)
    for place, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        for which, color, label in ((~eclipsing, BLUE, "detected"), (eclipsing, ORANGE, "and eclipsing")):
            place.scatter(1e3 * f[which], found[name][which], s=9, color=color, label=label)
        place.set(xscale="log", yscale="log", title=title)
        place.title.set_fontsize("small")
        place.xaxis.set_minor_locator(NullLocator())
        place.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    for place in axes[1]:
        place.set_xlabel("frequency (mHz)")
    axes[0, 0].legend(frameon=False, fontsize="small")
    save_both(figure, stem)
