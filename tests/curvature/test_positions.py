"""Positions without a gradient at the ends of samples are left out of products, and nothing else is."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import fisher_diagonal
from fisherexp.curvature.rules import outer
from fisherexp.curvature.rules.positions import spans


def test_spans():
    g = torch.zeros(5, 6, 3)
    g[0, 1:4, 0] = 1.0
    g[1, 2, 1] = -1e-40  # the smallest numbers count
    g[2, 5, 2] = float("nan")
    g[3] = 1.0
    assert spans(g) == [(1, 4), (2, 3), (5, 6), (0, 6), (6, 0)]
    g[0, 2] = 0.0  # a hole inside is kept
    assert spans(g)[0] == (1, 4)
    assert spans(torch.ones(2, 6, 3)) is None
    assert spans(torch.zeros(2, 1, 3)) is None


class Read(nn.Module):
    """Two layers over positions, of which each sample's loss reads a range or one."""

    def __init__(self, width, transposed):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.weight = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.transposed = transposed

    def forward(self, x, mask):
        h = self.first(x).tanh()
        h = h @ self.weight if self.transposed else F.linear(h, self.weight)
        return (h * mask.unsqueeze(-1)).sum(1)[:, :4]


MASKS = {
    "padding": [(0, 4), (0, 7), (0, 2), (0, 7)],
    "both ends": [(1, 4), (3, 6), (0, 7), (2, 3)],
    "one position": [(0, 1), (6, 7), (2, 3), (0, 1)],
    "nothing": [(0, 0), (0, 3), (0, 0), (1, 2)],
}


@pytest.mark.parametrize("way", ["several", "one by one"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ranges", MASKS)
def test_squares(ranges, transposed, way, monkeypatch):
    if way == "one by one":
        monkeypatch.setattr("fisherexp.curvature.rules.linear.large", lambda total: True)
        monkeypatch.setattr(outer.large, "__defaults__", (0,))
        monkeypatch.setattr(outer.add_in_cache, "__defaults__", (256,))
    torch.manual_seed(0)
    model, x, y = Read(12, transposed).double(), torch.randn(4, 7, 3).double(), torch.tensor([0, 1, 2, 3])
    mask = torch.zeros(4, 7).double()
    for row, (start, stop) in zip(mask, MASKS[ranges], strict=True):
        row[start:stop] = 1
    fisher = fisher_diagonal(model, [({"x": x, "mask": mask}, y)], compiled=False)
    expected = torch.zeros_like(model.weight)
    for n in range(4):
        loss = F.cross_entropy(model(x[n : n + 1], mask[n : n + 1]), y[n : n + 1])
        expected += torch.autograd.grad(loss, model.weight)[0].square() / 4
    torch.testing.assert_close(fisher["weight"], expected)
