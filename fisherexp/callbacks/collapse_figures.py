"""The figures of the neural-collapse callback: three classes, curves over epochs, channels."""

from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fisherexp.figures import BLUE, GRAY, GREEN, ORANGE, PURPLE, canvas, save_both
from fisherexp.files import write_atomically
from fisherexp.metrics.channels import LAMBDAS, fitted_cross_entropy, fitted_squared_error, outward, weights_of_rows

FINE = torch.linspace(0, 1, 101, dtype=torch.float64)  # λ of drawn lines
MARKERS = ("^", "s", "D")
# Panels of the curves: title -> metrics, each drawn for clean images and for same-class mixtures.
CURVES = {
    "NC1: Tr(Σ_W Σ_B⁺)/C": ("nc1",),
    "NC2: std/mean of lengths": ("nc2_equinorm_means", "nc2_equinorm_weights"),
    "NC2: mean |cos + 1/(C-1)|": ("nc2_angle_means", "nc2_angle_weights"),
    "NC3: ‖W/‖W‖ - M/‖M‖‖": ("nc3",),
    "NC4: share of disagreements": ("nc4",),
}


def draw(seen: dict[str, Tensor], folder: Path) -> None:
    """projection.png, .pdf (last epoch) and .gif (all of them), collapse.png, .pdf, channels.png, .pdf.

    seen: what the callback saw; the first dimension of every tensor is that of the epochs.
    """
    last = {name: values[-1] for name, values in seen.items()}
    save_both(projection(last), folder / "projection")
    if len(seen["epochs"]) > 1:
        animate(seen, folder / "projection.gif")
        save_both(curves(seen), folder / "collapse")
    save_both(channels(last), folder / "channels")


def projection(look: dict[str, Tensor]) -> Any:
    """Last-layer features of mixtures of three classes, in the plane of their classifier rows.

    look: what the callback saw in one epoch. Left mixtures of one class, right of two, from their color at λ = 0 or
    1 to black at λ = 1/2; the lines are the unconstrained-features optimum that fits the channel table.
    """
    figure, panels = canvas(1, 2, (9, 4.8))
    picture = {name.removeprefix("picture/"): values for name, values in look.items() if name.startswith("picture/")}
    reach = _reach(picture)
    blend = (2 * (picture["lambda"] - 0.5).abs()).numpy()
    halves = (("same", ORANGE, "mixtures within a class"), ("different", BLUE, "mixtures of different classes"))
    for panel, (name, color, words) in zip(panels, halves, strict=True):
        points = picture[name].numpy()
        shades = {"c": blend, "cmap": _from_black(color), "vmin": 0, "vmax": 1}
        panel.scatter(points[:, 0], points[:, 1], s=5, linewidths=0, **shades)
        # The rows are directions: they are drawn at one length, whatever their own.
        ends = picture["rows"] * (0.85 * reach / picture["rows"].norm(dim=1).max())
        for marker, label, end in zip(MARKERS, picture["classes"].tolist(), ends.tolist(), strict=True):
            panel.plot([0, end[0]], [0, end[1]], color=GRAY, linewidth=0.8, zorder=0)
            panel.plot(*end, marker, color=GREEN, markeredgecolor="k", markersize=9, label=f"class {label}")
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        panel.set_title(words, fontsize=10)
    for line in _optimum_in_the_plane(look):
        panels[1].plot(*line.T.numpy(), color=PURPLE, linewidth=1.5)
    panels[0].legend(frameon=False, loc="upper left", fontsize=8, title="classifier rows", title_fontsize=8)
    figure.suptitle(f"epoch {int(look['epochs'])}; black: λ = 1/2; lines: unconstrained features", fontsize=11)
    return figure


def animate(seen: dict[str, Tensor], file: Path) -> None:
    """The projection at every epoch looked at, as an animated GIF; each frame has its own scale."""
    import io

    from PIL import Image

    frames = []
    for number in range(len(seen["epochs"])):
        figure = projection({name: values[number] for name, values in seen.items()})
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=80)
        frames.append(Image.open(content).convert("P", palette=Image.Palette.ADAPTIVE))
    durations = [700] * (len(frames) - 1) + [2500]
    options = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0}
    write_atomically(file, lambda temporary: frames[0].save(temporary, format="GIF", **options))


def curves(seen: dict[str, Tensor]) -> Any:
    """The NC metrics over epochs, on clean images and on mixtures within a class, and the accuracy on the former."""
    figure, panels = canvas(2, 3, (11, 6))
    epochs = seen["epochs"].numpy()
    for panel, (title, metrics) in zip(panels.flat, CURVES.items(), strict=False):
        for metric in metrics:
            clean, mixed = seen[f"clean/{metric}"].numpy(), seen[f"same_class/{metric}"].numpy()
            if metric.endswith("weights"):
                panel.plot(epochs, clean, "s:", color=GRAY, markersize=3, label="classifier")
            else:
                panel.plot(epochs, clean, "o-", color=BLUE, markersize=3, label="clean")
                panel.plot(epochs, mixed, "^--", color=ORANGE, markersize=3, label="mixtures within a class")
        panel.set(title=title, xlabel="epoch", xscale="log", yscale="log" if metrics == ("nc1",) else "linear")
        if panel.get_yscale() == "linear":
            panel.set_ylim(bottom=0)
        panel.legend(frameon=False, fontsize=8)
    accuracy = panels.flat[len(CURVES)]
    accuracy.plot(epochs, seen["clean/accuracy"].numpy(), "o-", color=BLUE, markersize=3)
    accuracy.set(title="clean training accuracy (%)", xlabel="epoch", xscale="log")
    return figure


def channels(look: dict[str, Tensor]) -> Any:
    """Outputs and features of mixtures of two classes against λ, with the unconstrained-features optimum.

    look: what the callback saw in one epoch.
    """
    figure, (left, right) = canvas(1, 2, (9.5, 4.2))
    table, grid = look["channels"], list(LAMBDAS)
    words, theory = _optimum(look)
    names = ("first class", "second class", "largest other")
    for column, (name, color, marker) in enumerate(zip(names, (BLUE, ORANGE, GRAY), "o^s", strict=True)):
        left.plot(grid, table[:, column], marker, color=color, markersize=5, label=name)
        left.plot(FINE, theory[:, column], color=color, linewidth=1)
    for target in (FINE, 1 - FINE):
        left.plot(FINE, target, color="k", linestyle=":", linewidth=0.8)
    output = "output" if look["raw_outputs"] else "probability"
    left.set(xlabel="λ, the share of the first class", ylabel=output, xlim=(-0.02, 1.02))
    for column, name, color, marker in ((3, "first class", BLUE, "o"), (4, "second class", ORANGE, "^")):
        right.plot(grid, table[:, column], marker, color=color, markersize=5, label=f"along the {name}'s row")
        right.plot(FINE, theory[:, column], color=color, linewidth=1)
        ends = [table[0, column].item(), table[-1, column].item()]
        right.plot([0, 1], ends, color=color, linestyle=":", linewidth=1)
    right.set(xlabel="λ, the share of the first class", ylabel="component of the centered feature", xlim=(-0.02, 1.02))
    right.set_title(f"at λ = 1/2 {100 * outward(table):+.0f} % off the chord", fontsize=10)
    left.set_title("dotted: the target", fontsize=10)
    for panel in (left, right):
        panel.legend(frameon=False, fontsize=8)
    title = f"epoch {int(look['epochs'])}; lines: unconstrained features, {words}; dotted right: convex combination"
    figure.suptitle(title, fontsize=11)
    return figure


def _optimum(look: dict[str, Tensor]) -> tuple[str, Tensor]:
    """What was fitted, in words, and the optimum's curves at FINE: that of the loss the outputs were trained by."""
    table, classes = look["channels"], int(look["classes"])
    if look["raw_outputs"]:
        shrinkage, theory = fitted_squared_error(table, classes, FINE)
        return f"squared error, s = {shrinkage:.3g}", theory
    kappa, theory = fitted_cross_entropy(table, classes, FINE)
    return f"κ = {kappa:.3g}", theory


def _optimum_in_the_plane(look: dict[str, Tensor]) -> list[Tensor]:
    """The optimum of each pair of the picture's classes, (len(FINE), 2) each."""
    weights = weights_of_rows(_optimum(look)[1][:, 3:5], int(look["classes"]))
    pairs = combinations(look["picture/directions"].double(), 2)
    return [look["picture/center"] + weights @ torch.stack(pair) for pair in pairs]


def _from_black(color: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(color, ["#000000", color])


def _reach(picture: dict[str, Tensor]) -> float:
    # A few stray points may lie outside: they would make everything else small.
    points = torch.cat([picture["same"], picture["different"]]).norm(dim=1)
    return 1.15 * points.quantile(0.99).item()
