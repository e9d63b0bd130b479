"""Curves over training and a scatter: head geometry of the domains against accuracy on the target."""

from pathlib import Path
from typing import Any

from fisherexp.figures import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, canvas, save_both


def draw(records: list[dict[str, Any]], stem: Path) -> None:
    """Four panels, as `stem`.png and `stem`.pdf: accuracies; Hessian distances; gradient norms and the transfer
    measure; target accuracy against the Hessian distance between training domains."""
    steps = [record["step"] for record in records]
    figure, ((accuracy, hessian), (slope, scatter)) = canvas(2, 2, (8.4, 5.9))

    def curve(axis: Any, values: list[float], label: str, color: str, style: str = "-") -> None:
        axis.plot(steps, values, label=label, color=color, linestyle=style, linewidth=1.4)

    def column(name: str) -> list[float]:
        return [record[name] for record in records]

    curve(accuracy, column("train_accuracy"), "training domains", BLUE)
    curve(accuracy, column("target_accuracy"), "target", ORANGE)
    accuracy.set(title="accuracy (%)", xlabel="step", ylim=(0, 100))
    for norm, words, style in (("frobenius", "Frobenius", "-"), ("spectral", "spectral", "--")):
        curve(hessian, column(f"{norm}_training"), f"between training domains, {words}", BLUE, style)
        curve(hessian, column(f"{norm}_target"), f"to the target, {words}", ORANGE, style)
    hessian.set(title="distance of head Hessians", xlabel="step", yscale="log")
    colors = iter((BLUE, GREEN, PURPLE, SKY, GRAY) * len(records[0]["gradient_norm"]))
    for name in records[0]["gradient_norm"]:
        values = [record["gradient_norm"][name] for record in records]
        curve(slope, values, f"‖gradient‖, {name}", ORANGE if name == "target" else next(colors))
    curve(slope, column("transfer"), "transfer measure", "black")
    curve(slope, column("transfer_bound"), "second-order bound", "black", ":")
    slope.set(title="head gradients and transfer", xlabel="step", yscale="log")
    distances, reached = column("frobenius_training"), column("target_accuracy")
    scatter.plot(distances, reached, color=GRAY, linewidth=0.6, zorder=0)
    points = scatter.scatter(distances, reached, c=steps, cmap="viridis", s=18)
    scatter.set(title="target accuracy (%)", xlabel="Frobenius distance between training domains", xscale="log")
    figure.colorbar(points, ax=scatter, label="step")
    for axis, columns in ((accuracy, 1), (hessian, 1), (slope, 2)):
        axis.legend(fontsize=7, framealpha=0.7, edgecolor="none", ncols=columns)
    hessian.margins(y=0.6)  # room for the legends
    slope.margins(y=0.35)
    for axis in (hessian.yaxis, slope.yaxis, scatter.xaxis):
        _plain_ticks(axis)
    save_both(figure, stem)


def _plain_ticks(axis: Any) -> None:
    """Decimals on a logarithmic axis, the more of them within a decade the fewer decades it has."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = range(1, 10) if high < 3 * low else (1, 2, 3, 5) if high < 15 * low else (1, 3)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
