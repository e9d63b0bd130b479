"""The optimum drawn over the points: where features are the optimum, its lines are the points."""

from itertools import combinations

import pytest
import torch

from fisherexp.callbacks.collapse_figures import FINE, _optimum_in_the_plane
from fisherexp.metrics.channels import LAMBDAS, channel_row, unit_rows
from fisherexp.metrics.class_plane import coordinates
from fisherexp.metrics.unconstrained_features import mixed_targets, optimal_features, optimal_features_squared_error
from fisherexp.models.heads import simplex_etf


@pytest.mark.parametrize(
    ("optimum", "raw", "tolerance"), [(optimal_features, False, 0.02), (optimal_features_squared_error, True, 1e-6)]
)
def test_lines_of_the_optimum_go_through_optimal_features(optimum, raw, tolerance):
    """κ comes from a grid, hence the first tolerance; the squared error is fitted exactly."""
    torch.manual_seed(0)
    weight, center, chosen, decay = simplex_etf(10, 16), torch.randn(16).double(), [2, 5, 7], 10 / 9 / 30
    mixtures = lambda lam, pair: center + optimum(weight, mixed_targets(lam, 10, *pair), decay)  # noqa: E731
    pairs, lam = list(combinations(chosen, 2)), torch.tensor(LAMBDAS, dtype=torch.float64)
    features = torch.stack([mixtures(lam, pair) for pair in pairs], 1)
    outputs = lambda h: (h - center) @ weight.T + 0.1  # noqa: E731
    out = [outputs(h) if raw else outputs(h).softmax(1) for h in features]
    rows = [channel_row(h, p, torch.tensor(pairs), weight, center) for h, p in zip(features, out, strict=True)]
    plane = weight[chosen]
    look = {
        "channels": torch.stack(rows),
        "classes": torch.tensor(10),
        "raw_outputs": torch.tensor(raw),
        "picture/center": coordinates(center[None], plane)[0],
        "picture/directions": coordinates(unit_rows(weight)[chosen] + center, plane) - coordinates(center[None], plane),
    }
    for line, pair in zip(_optimum_in_the_plane(look), pairs, strict=True):
        expected = coordinates(mixtures(FINE, pair), plane)
        size = (expected - look["picture/center"]).norm(dim=1).max()
        assert (line - expected).norm(dim=1).max() < tolerance * size
