"""Norms and second moments of per-sample gradients against one sample at a time."""

import pytest
import torch
from fisher_oracles import Residual, Shared, Tokens
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import fisher_diagonal, gradient_second_moments, per_sample_gradient_norms


def each(model, x, y):
    model.eval()
    for i in range(len(y)):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        yield dict(zip((n for n, _ in model.named_parameters()), gradients, strict=True))


class Scaled(nn.Module):
    """A temperature, a parameter without axes, met by a rule and, written into a mask, by none."""

    def __init__(self):
        super().__init__()
        self.first, self.scale, self.fill = nn.Linear(6, 3), nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (self.first(x) * self.scale).masked_fill(x[:, :3] > 0.5, self.fill)


CASES = {
    "without axes": (Scaled, (6,)),
    "shared": (Shared, (6,)),
    "residual": (Residual, (3, 8, 8)),
    "tokens": (Tokens, (5, 8)),
    "few positions": (lambda: nn.Sequential(nn.Linear(8, 9), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)), (2, 8)),
}


@pytest.mark.filterwarnings("ignore:.*cannot be followed")
@pytest.mark.parametrize("name", CASES)
def test_norms(name):
    torch.manual_seed(0)
    make, shape = CASES[name]
    model = make().double()
    x, y = torch.randn(5, *shape).double(), torch.randint(0, 3, (5,))
    found = per_sample_gradient_norms(model, x, y)
    for i, gradients in enumerate(each(model, x, y)):
        for parameter, g in gradients.items():
            torch.testing.assert_close(found[parameter][i], g.norm())


def test_expected_norms_add_up_to_the_trace():
    torch.manual_seed(0)
    model, x = Shared().double(), torch.randn(5, 6).double()
    norms = per_sample_gradient_norms(model, x, labels="expected")
    trace = fisher_diagonal(model, [(x,)], labels="expected").trace()
    torch.testing.assert_close(sum(n.square().mean() for n in norms.values()), trace)


SECOND = {
    "shared": ["twice.weight", "first.bias"],
    "residual": ["conv2.weight", "bn2.weight"],
    "without axes": ["scale", "fill"],
}


@pytest.mark.filterwarnings("ignore:.*cannot be followed")
@pytest.mark.parametrize("name", SECOND)
def test_second_moments(name):
    torch.manual_seed(0)
    make, shape = CASES[name]
    model = make().double()
    x, y = torch.randn(5, *shape).double(), torch.randint(0, 3, (5,))
    chosen = SECOND[name]
    found = gradient_second_moments(model, [(x[:2], y[:2]), (x[2:], y[2:])], parameters=chosen)
    assert set(found) == set(chosen)
    for parameter in chosen:
        rows = torch.stack([g[parameter].flatten() for g in each(model, x, y)])
        torch.testing.assert_close(found[parameter], rows.T @ rows / 5)
    diagonal = fisher_diagonal(model, [(x, y)], parameters=chosen)
    for parameter in chosen:
        torch.testing.assert_close(found[parameter].diagonal(), diagonal[parameter].flatten())
