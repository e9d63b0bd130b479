"""Independent implementations agree where they can run (optional: installed with the `peers` extra)."""

import pytest
import torch
from fisher_oracles import worst
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import fisher_diagonal


def problem(kind):
    torch.manual_seed(0)
    if kind == "mlp":
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        return model.double(), torch.randn(7, 6).double(), torch.randint(0, 4, (7,))
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 4)
    )
    return model.double(), torch.randn(7, 2, 8, 8).double(), torch.randint(0, 4, (7,))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_backpack(kind):
    backpack = pytest.importorskip("backpack")
    extensions = pytest.importorskip("backpack.extensions")
    model, x, y = problem(kind)
    found = fisher_diagonal(model, [(x, y)])
    model, loss = backpack.extend(model), backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    with backpack.backpack(extensions.SumGradSquared()):
        loss(model(x), y).backward()
    assert worst(found, {n: p.sum_grad_squared / 7 for n, p in model.named_parameters()}) <= 1e-10


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_nngeometry(kind):
    metrics = pytest.importorskip("nngeometry.metrics")
    objects = pytest.importorskip("nngeometry.object")
    from torch.utils.data import DataLoader, TensorDataset

    model, x, y = problem(kind)
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    peer = metrics.FIM(
        model,
        loader,
        objects.PMatDiag,
        variant="regression",
        function=lambda a, b: F.cross_entropy(model(a), b, reduction="none").unsqueeze(1),
    )
    expected = peer.get_diag().double()
    layers = [m for m in model if list(m.parameters())]
    found = fisher_diagonal(model, [(x, y)])
    names = [f"{i}.{n}" for i, m in enumerate(model) if m in layers for n in ("weight", "bias")]
    flat = torch.cat([found[n].flatten() for n in names])
    assert ((flat - expected).abs().max() / expected.abs().max()) <= 1e-6


def test_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    model, x, y = problem("mlp")
    operator = curvlinops.EFLinearOperator(
        model, nn.CrossEntropyLoss(reduction="mean"), list(model.parameters()), [(x, y)], check_deterministic=False
    )
    size = operator.shape[0]
    dense = operator @ torch.eye(size, dtype=torch.float64)
    found = torch.cat([v.flatten() for _, v in fisher_diagonal(model, [(x, y)]).items()])
    torch.testing.assert_close(found, dense.diagonal(), rtol=1e-8, atol=1e-12)
