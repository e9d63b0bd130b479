"""The gradients of a batch's samples against one backward pass a sample."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import PerSampleGradients


class Tied(nn.Module):
    """A weight used twice, one that is left out, a norm and a scale without axes."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 3)
        self.unused, self.scale = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.first(torch.tanh(self.first(x))))) * self.scale)


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)), (6, 5)),
    "tied": (Tied, (6, 5)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3)), (6, 1, 4, 4)),
    "tokens": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)), (6, 2, 5)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_gram_matrix_and_sums_are_those_of_single_backward_passes(name):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model, x, y = make().double(), torch.randn(shape).double(), torch.randint(3, shape[:1])
    sampled = PerSampleGradients(model)
    for _ in range(2):  # the first is verified, the second not
        found = sampled(x, y)
    expected = []
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        expected.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()])
    whole = torch.stack([torch.cat([g.flatten() for g in row]) for row in expected])
    rows = torch.cat([part.reshape(len(part), -1) for part in found.rows().values()], 1)
    torch.testing.assert_close(rows, whole)
    torch.testing.assert_close(found.gram(), whole @ whole.mT)
    weights = torch.randn(len(x)).double()
    combined = found.combined(weights)
    assert list(combined) == [n for n, _ in model.named_parameters()]
    torch.testing.assert_close(torch.cat([part.flatten() for part in combined.values()]), weights @ whole)
    torch.testing.assert_close(found.losses, F.cross_entropy(model(x), y, reduction="none"))


def test_sampled_labels_are_those_of_the_generator():
    torch.manual_seed(0)
    model, x, y = nn.Linear(5, 3).double(), torch.randn(40, 5).double(), torch.zeros(40, dtype=torch.long)
    sampled = PerSampleGradients(model, labels="sampled", seed=3)
    drawn = torch.multinomial(model(x).softmax(1), 1, generator=torch.Generator().manual_seed(3)).squeeze(1)
    expected = PerSampleGradients(model)(x, drawn).rows()
    for name, rows in sampled(x, y).rows().items():
        torch.testing.assert_close(rows, expected[name])
