"""Identities over time in the colors of their tracks, and their features before and after the transformation."""

from pathlib import Path

import numpy as np
from torch import Tensor

from fisherexp.data.tracks import Detections
from fisherexp.figures import canvas, save_both
from fisherexp.methods.tracking.tracker import Rules, transformed

FRAMES = 30  # whose features are shown
COLORS = 20


def draw(detections: Detections, tracks: Tensor, rules: Rules, stem: Path) -> None:
    """tracks: the number of each detection's track, (n,)."""
    features, frames, identities = (part.numpy() for part in detections)
    figure, axes = canvas(1, 3, (11.4, 3.8))
    look = {"c": tracks.numpy() % COLORS, "cmap": "tab20", "vmin": 0, "vmax": COLORS - 1}
    axes[0].scatter(frames, identities, marker="s", s=6, **look)
    axes[0].set(xlabel="frame", ylabel="identity", title="a color for each track")
    late = frames > frames.max() - FRAMES
    shown, who = features[late], identities[late]
    histories = [shown[who == identity] for identity in np.unique(who)]
    parts = transformed(histories, [shown], rules)
    for place, points, title in (
        (axes[1], shown, "features, principal components"),
        (axes[2], parts and parts[0], "transformed, by true identity"),
    ):
        if points is None:
            place.set_axis_off()
            continue
        flat = leading(points) if points is shown else points[:, :2]
        flat = flat if flat.shape[1] == 2 else np.pad(flat, ((0, 0), (0, 1)))
        place.scatter(*flat.T, s=5, c=who % COLORS, cmap="tab20", vmin=0, vmax=COLORS - 1)
        place.set(title=title, xticks=[], yticks=[])
    save_both(figure, stem)


def leading(points: np.ndarray) -> np.ndarray:
    """The first two principal components, of one dimension the one: (n, 2) or (n, 1)."""
    centered = points - points.mean(axis=0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    return left[:, :2] * values[:2]
