"""Samples, how much of each was used, and where the estimate lies."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fisherexp.data.contaminated import Contaminated
from fisherexp.figures import BLUE, GRAY, GREEN, ORANGE, canvas, save_both
from fisherexp.problems.contaminated import Estimate


def draw(samples: Tensor, estimate: Estimate, drawn: Contaminated, stem: Path) -> None:
    """samples: (n, d), in the plane of the first principal axis of all samples and the second."""
    axes_of_plane = torch.linalg.svd(samples - samples.mean(0), full_matrices=False).Vh[:2]
    plane = lambda points: ((points - samples.mean(0)) @ axes_of_plane.T).T  # noqa: E731
    figure, (left, right) = canvas(1, 2, (7.6, 3.4), width_ratios=(1.3, 1))
    outlier = drawn.component < 0
    if len(axes_of_plane) == 2:
        for where, color, name in ((~outlier, BLUE, "inliers"), (outlier, ORANGE, "outliers")):
            left.scatter(*plane(samples[where]), s=6, color=color, alpha=0.5, linewidths=0, label=name)
        left.scatter(*plane(drawn.means), marker="x", s=60, color="black", label="true mean", zorder=3)
        left.scatter(*plane(estimate.means), marker="+", s=90, color=GREEN, label="estimate", zorder=4)
    left.set(xlabel="first principal axis", ylabel="second")
    left.legend(frameon=False, fontsize="small")
    if estimate.sample_weights is None:
        right.text(0.5, 0.5, "weighs no samples", ha="center", va="center", color=GRAY)
        right.set_axis_off()
    else:
        shares = len(samples) * estimate.sample_weights
        kinds = [shares[~outlier].numpy(), shares[outlier].numpy()]
        right.hist(kinds, bins=30, stacked=True, color=[BLUE, ORANGE], label=["inliers", "outliers"])
        right.set(xlabel="weight of a sample, times n", ylabel="samples")
    save_both(figure, stem)


def draw_training(accuracies: Sequence[float], weights: Tensor, outlier: Tensor, stem: Path) -> None:
    """accuracies: in %, by step. weights: of samples (n,), of sum one; outlier: bool (n,)."""
    figure, (left, right) = canvas(1, 2, (7.4, 3.0))
    left.plot(range(1, len(accuracies) + 1), accuracies, color=BLUE)
    left.set(xlabel="step", ylabel="test accuracy, %")
    shown = (len(weights) * weights).numpy()
    kinds = [(shown[~outlier.numpy()], "inliers", BLUE), (shown[outlier.numpy()], "outliers", ORANGE)]
    values, names, colors = zip(*kinds, strict=True)
    right.hist(values, bins=30, range=(0, max(1.5, float(shown.max()))), stacked=True, color=colors, label=names)
    right.set(xlabel="weight (1: as in the mean)", ylabel="samples")
    right.legend(frameon=False, fontsize="small")
    save_both(figure, stem)
