"""Batches of batch_mean that go through the model at once: the same sums as batch after batch by autograd."""

import warnings

import pytest
import torch
from fisher_oracles import Residual, Shared, TinyGPT, Tokens, Windows, worst
from test_fisher_exact import RULES
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import DiagonalAccumulator, fisher_diagonal

NETWORKS = {Shared: (6,), Residual: (3, 8, 8), Windows: (8, 6), Tokens: (5, 8)}


def one_batch_at_a_time(model, x, y, size, loss=F.cross_entropy):
    """The definition: squares of the gradients of batches' mean losses, batches counting once."""
    named, batches = dict(model.named_parameters()), list(zip(x.split(size), y.split(size), strict=True))
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    for a, b in batches:
        gradients = torch.autograd.grad(loss(model(a), b), list(named.values()), allow_unused=True)
        for name, g in zip(named, gradients, strict=True):
            if g is not None:
                total[name] += g.square() / len(batches)
    return total


def assert_sums_of_batches(model, x, group=3, **options):
    model = model.double().eval()
    x = x.double() if x.is_floating_point() else x
    y = torch.randint(0, model(x).shape[-1], (len(x),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fallbacks
        found = fisher_diagonal(model, [(x, y)], gradients="batch_mean", group=group, **options)
    assert worst(found, one_batch_at_a_time(model, x, y, group)) <= 1e-10
    assert (found.count, found.estimator.batch_size) == (-(-len(x) // group), min(group, len(x)))


@pytest.mark.parametrize("name", RULES)
def test_layers(name):
    torch.manual_seed(0)
    make, inputs = RULES[name]
    model = make()
    model(inputs(2))  # lazy layers
    assert_sums_of_batches(model, inputs(8), compiled=False)


@pytest.mark.parametrize("name", [name for name in RULES if name.startswith("conv")])
def test_compiled_convolutions(compiled, name):
    torch.manual_seed(0)
    make, inputs = RULES[name]
    model = make()
    model(inputs(2))
    assert_sums_of_batches(model, inputs(8), compiled=True)


@pytest.mark.parametrize("group", [1, 4, 9])
@pytest.mark.parametrize("module", NETWORKS)
def test_networks(module, group):
    torch.manual_seed(0)
    assert_sums_of_batches(module(), torch.randn(8, *NETWORKS[module]), group)


def test_rows_that_lie_between_others_go_one_batch_at_a_time():
    torch.manual_seed(0)
    model, x, y = Windows().double(), torch.randn(6, 8, 6).double(), torch.randint(0, 3, (6,))
    with pytest.warns(UserWarning, match="lays others between them"):
        found = fisher_diagonal(model, [(x, y)], gradients="batch_mean", group=2)
    assert worst(found, one_batch_at_a_time(model, x, y, 2)) <= 1e-10


@pytest.mark.parametrize("loss", ["sequence", "token"])
def test_language_models(loss):
    torch.manual_seed(0)
    model = TinyGPT().double().eval()
    x, y = torch.randint(0, 13, (2, 5, 7))
    y[0, 3:] = -100
    apart = fisher_diagonal(model, zip(x.split(2), y.split(2), strict=True), loss=loss, gradients="batch_mean")
    together = fisher_diagonal(model, [(x, y)], loss=loss, gradients="batch_mean", group=2)
    assert worst(together, dict(apart.items())) <= 1e-10


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.w, self.b = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return F.batch_norm(self.conv(x), None, None, self.w, self.b, training=True).mean((2, 3)) ** 2


class Centered(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.last(h - h.mean(0))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Fused(), (3, 5, 5)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Tanh()), (3,)),
        (Centered(), (4,)),
    ],
)
def test_samples_that_meet_in_the_model_meet_those_of_their_batch_only(model, shape):
    torch.manual_seed(0)
    assert_sums_of_batches(model, torch.randn(8, *shape))


@pytest.mark.parametrize("labels", ["pseudo", "sampled"])
def test_the_models_own_labels_and_weights(labels):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double(), torch.randn(6, 4).double()
    options = {"labels": labels, "gradients": "batch_mean", "seed": 3}
    w = torch.tensor([1, 2, 0.5, 1, 1, 3]).double()
    size = 6 if labels == "sampled" else 2  # draws follow the order in which they are asked for
    apart = fisher_diagonal(model, zip(x.split(size), [None] * 3, w.split(size), strict=False), **options)
    together = fisher_diagonal(model, [(x, None, w)], **options, group=size)
    assert worst(together, dict(apart.items())) <= 1e-10


@pytest.mark.parametrize(("gradients", "group"), [("per_sample", 4), ("batch_mean", 0)])
def test_groups_of_no_batch(gradients, group):
    with pytest.raises(ValueError, match=f"got {group} for {gradients}"):
        DiagonalAccumulator(nn.Linear(4, 3), gradients=gradients, group=group)
