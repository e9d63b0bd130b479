"""What the classes of low-rank compression make of their options: ranks, and the product of the factors."""

import pytest
import torch
from torch import nn

from fisherexp.adapters import adapted_layers
from fisherexp.methods.compression.fwsvd import FWSVD
from fisherexp.methods.compression.svd import SVD
from fisherexp.methods.compression.weighted_svd import fisher_scales, weighted_svd
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe

torch.manual_seed(0)
WEIGHT, FISHER = torch.randn(8, 6, dtype=torch.float64), torch.rand(8, 6, dtype=torch.float64) ** 4


@pytest.mark.parametrize(("rank", "ratio", "expected"), [(None, 0.9, 3), (None, 0.3, 1), (2, 0.9, 2), (9, 0.9, 6)])
def test_ranks_are_as_given_or_from_the_ratio(rank, ratio, expected):
    """⌊ratio · 8 · 6 / 14⌋ of a matrix of eight rows and six columns, never more than it has."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    SVD(model, rank=rank, ratio=ratio, finetune=Recipe(epochs=0)).setup("fit")
    (layer,) = adapted_layers(model).values()
    assert layer.adapters[0].down.shape == (expected, 6)


def test_fwsvd_weighs_the_axis_that_is_named():
    found = []
    for axis in ("out", "in", "two_sided"):
        options = {"rank": 2, "ratio": 1.0, "importance": Importance(), "finetune": Recipe(epochs=0)}
        parts, _ = FWSVD(nn.Linear(6, 8), axis=axis, **options).decompose({"a": WEIGHT}, {"a": 2}, {"a": FISHER})
        rest, left, right = parts["a"]
        expected = weighted_svd(WEIGHT, *fisher_scales(FISHER, axis), 2)
        assert rest == 0.0
        torch.testing.assert_close(left @ right, expected[0] @ expected[1])
        found.append(left @ right)
    assert all(not torch.allclose(one, other) for n, one in enumerate(found) for other in found[:n])
