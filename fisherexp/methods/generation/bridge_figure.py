"""A bridge between two clouds of points: the clouds, some paths, and where the first cloud arrives."""

from pathlib import Path

from torch import Tensor

from fisherexp.figures import BLUE, GRAY, GREEN, ORANGE, canvas, save_both

POINTS, PATHS, STEPS = 1000, 20, 100


def draw(source: Tensor, target: Tensor, mapped: Tensor, paths: Tensor, stem: Path) -> None:
    """Points (n, d), paths (steps + 1, k, d); the first two coordinates are shown, of d = 1 the one over time."""
    figure, axes = canvas(1, 3, (10.2, 3.6))
    if source.shape[1] == 1:
        _histograms(axes, source, target, mapped)
        time = [step / (len(paths) - 1) for step in range(len(paths))]
        axes[1].plot(time, paths[..., 0].numpy(), color=GRAY, linewidth=0.6)
        axes[1].set(xlabel="time", title="paths")
    else:
        looks = ((source, BLUE, "p₀"), (paths[-1], ORANGE, "paths"), (mapped, ORANGE, "carried over"))
        for place, (points, color, title) in zip(axes, looks, strict=True):
            place.scatter(*target[:, :2].T.numpy(), s=3, color=GREEN, alpha=0.4, label="p₁")
            if title == "paths":
                for path in paths.unbind(1):
                    place.plot(*path[:, :2].T.numpy(), color=GRAY, linewidth=0.6)
                place.scatter(*paths[0, :, :2].T.numpy(), s=12, color=BLUE, zorder=3)
            place.scatter(*points[:, :2].T.numpy(), s=12 if title == "paths" else 3, color=color, zorder=3)
            place.set(title=f"{title} and p₁", aspect="equal")
    save_both(figure, stem)


def _histograms(axes: list, source: Tensor, target: Tensor, mapped: Tensor) -> None:
    for place, points, color, title in ((axes[0], source, BLUE, "p₀"), (axes[2], mapped, ORANGE, "carried over")):
        place.hist(target[:, 0].numpy(), 40, density=True, color=GREEN, alpha=0.4)
        place.hist(points[:, 0].numpy(), 40, density=True, histtype="step", color=color)
        place.set(title=f"{title} and p₁")
