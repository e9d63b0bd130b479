"""KFAC: exact where the approximation is exact, and its definition from unfolded inputs everywhere else."""

import pytest
import torch
from fisher_oracles import Residual, Shared, TinyGPT
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import fisher_diagonal, kfac
from fisherexp.curvature.kronecker_sums import LEAF, add_gram, symmetric


def dense_fisher(model, inputs, outputs, names):
    """Σ_k J_kᵀ J_k / N over all outputs: the exact Gaussian Fisher over the parameters `names`, flattened."""
    parameters = dict(model.named_parameters())
    total = 0
    for i in range(len(inputs)):
        z = outputs(model(inputs[i : i + 1]))
        for k in range(z.numel()):
            g = torch.autograd.grad(z.flatten()[k], [parameters[n] for n in names], retain_graph=True)
            matrix = torch.cat([t.reshape(g[0].shape[0], -1) for t in g], 1).flatten()
            total = total + torch.outer(matrix, matrix)
    return total / len(inputs)


def test_add_gram():
    x = torch.randn(5, 3 * LEAF + 7, dtype=torch.float64)
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    add_gram(x, total)
    add_gram(x, total)
    torch.testing.assert_close(symmetric(total), 2 * x.T @ x)


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
def test_exact_for_a_linear_model(approximation):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    x = torch.randn(6, 4).double()
    found = kfac(model, [(x[:2],), (x[2:],)], approximation=approximation, labels="expected", loss="gaussian")
    exact = dense_fisher(model, x, lambda z: z, ["weight", "bias"])
    torch.testing.assert_close(found.factors["weight"].dense(), exact)


class Deep(nn.Module):
    """Linear layers shared over positions; `pool`: averaged before the last, otherwise every position is output."""

    def __init__(self, pool, conv=False):
        super().__init__()
        self.pool, self.conv = pool, conv
        self.first = nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=(1, 0)) if conv else nn.Linear(3, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        h = self.first(x)
        h = h.flatten(2).mT if self.conv else h
        return self.last(h.mean(1) if self.pool else h)


@pytest.mark.parametrize("conv", [False, True])
def test_reduce_is_exact_for_averaged_positions(conv):
    """Eschenhagen et al. 2023, proposition 2."""
    torch.manual_seed(0)
    model = Deep(pool=True, conv=conv).double()
    x = torch.randn(4, *((2, 4, 7) if conv else (5, 3))).double()
    found = kfac(model, [(x,)], approximation="reduce", labels="expected", loss="gaussian")
    torch.testing.assert_close(
        found.factors["first.weight"].dense(), dense_fisher(model, x, lambda z: z, ["first.weight", "first.bias"])
    )


def test_expand_is_exact_for_positions_as_samples():
    """Eschenhagen et al. 2023, proposition 1."""
    torch.manual_seed(0)
    model = Deep(pool=False).double()
    x = torch.randn(4, 5, 3).double()
    found = kfac(model, [(x,)], approximation="expand", labels="expected", loss="gaussian")
    torch.testing.assert_close(
        found.factors["first.weight"].dense(), dense_fisher(model, x, lambda z: z, ["first.weight", "first.bias"])
    )


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"dilation": (1, 2), "padding": (2, 1)},
        {"bias": False},
        {"groups": 2},
        {"groups": 6, "stride": (1, 2)},
        {"groups": 6, "bias": False},
    ],
)
def test_definition_with_unfold(approximation, options):
    """Convolution factors from `F.unfold` and autograd's output gradients."""
    torch.manual_seed(0)
    conv, groups = nn.Conv2d(6, 12, (3, 2), **options).double(), options.get("groups", 1)
    model = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3).double())
    x, y = torch.randn(5, 6, 6, 7).double(), torch.randint(0, 3, (5,))
    model(x)
    kept = {}
    handle = conv.register_forward_hook(lambda m, i, o: kept.update(o=o))
    loss = F.cross_entropy(model(x), y, reduction="sum")
    handle.remove()
    g = torch.autograd.grad(loss, kept["o"])[0].flatten(2).mT  # (N, L, O)
    u = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride).mT
    found = kfac(model, [(x, y)], approximation=approximation).factors["0.weight"]
    blocks = []
    parts = zip(u.chunk(groups, -1), g.chunk(groups, -1), strict=True)
    for patches, gradients in parts:  # patches have the channels first
        if conv.bias is not None:
            patches = torch.cat([patches, torch.ones_like(patches[..., :1])], -1)
        if approximation == "expand":
            a, b = patches.flatten(0, 1), gradients.flatten(0, 1)
        else:
            a, b = patches.mean(1), gradients.sum(1)
        blocks.append((a.T @ a / len(a), b.T @ b / 5))
    a, b = (torch.stack(part) if groups > 1 else part[0] for part in zip(*blocks, strict=True))
    torch.testing.assert_close(found.a, a)
    torch.testing.assert_close(found.b, b)


def test_one_position_reproduces_bias_and_products():
    """For one sample and one position the block is exact: its diagonal is the diagonal Fisher."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(1, 4).double(), torch.tensor([2])
    found, diagonal = kfac(model, [(x, y)]), fisher_diagonal(model, [(x, y)])
    by_name = found.named(found.diagonal())
    assert set(by_name) == set(diagonal)
    for name, value in by_name.items():
        torch.testing.assert_close(value, diagonal[name])
    torch.testing.assert_close(found.trace(), diagonal.trace())


def test_algebra_matches_dense():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)).double()
    found = kfac(model, [(torch.randn(8, 4).double(), torch.randint(0, 3, (8,)))])
    delta = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    product, solved, quadratic = found.matvec(delta), found.solve(delta, 0.1), 0
    for factor in found.factors.values():
        dense, flat = factor.dense(), factor.matrix(delta).flatten()
        torch.testing.assert_close(factor.matrix(product).flatten(), dense @ flat)
        damped = dense + 0.1 * torch.eye(len(dense), dtype=dense.dtype)
        torch.testing.assert_close(factor.matrix(solved).flatten(), torch.linalg.solve(damped, flat))
        quadratic += flat @ dense @ flat
    torch.testing.assert_close(found.quadratic(delta), quadratic)
    with pytest.raises(ValueError, match="positive"):
        found.solve(delta, 0.0)


def test_skipped_parameters_are_listed():
    torch.manual_seed(0)
    tokens = torch.randint(0, 13, (2, 3, 7))
    found = kfac(TinyGPT(), [tuple(tokens)], loss="sequence")
    assert "token.weight" in found.skipped  # tied
    assert "blocks.layers.0.linear1.weight" in found.factors
    assert "blocks.layers.0.self_attn.in_proj_weight" in found.factors
    shared = kfac(Shared(), [(torch.randn(3, 6), torch.zeros(3).long())])
    assert "twice.weight" in shared.skipped
    assert not any(f.a.isnan().any() for f in shared.factors.values())


def test_model_and_errors():
    torch.manual_seed(0)
    model = Residual().train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    kfac(model, [(torch.randn(3, 3, 8, 8), torch.zeros(3).long())])
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with pytest.raises(ValueError, match="did you mean 'expand'"):
        kfac(model, [], approximation="expnd")
    with pytest.raises(ValueError, match="used exactly once"):
        kfac(nn.LayerNorm(3), [(torch.randn(2, 3), torch.zeros(2).long())])
