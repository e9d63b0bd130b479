"""Error and loss of a matrix recovery over steps."""

from collections.abc import Sequence
from pathlib import Path

from fisherexp.figures import BLUE, GRAY, ORANGE, canvas, save_both


def draw(curve: Sequence[Sequence[float]], init_scale: float, stem: Path) -> None:
    """curve: pairs of loss and relative error, one for the start and each step."""
    figure, axes = canvas(1, 1, (4.6, 3.4))
    losses, errors = zip(*curve, strict=True)
    axes.plot(errors, color=BLUE, label="relative error ‖UUᵀ - X*‖ / ‖X*‖")
    axes.plot(losses, color=ORANGE, label="loss")
    axes.axhline(init_scale, color=GRAY, linestyle="--", linewidth=1, label="scale α of the start")
    axes.set(xlabel="steps", yscale="log")
    axes.legend(frameon=False, fontsize="small")
    save_both(figure, stem)
