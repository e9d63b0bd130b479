"""WoodFisher: its blocks, WoodTaylor, and that M-FAC in blocks is the same."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.diagonal_fisher_pruning import diagonal_saliency
from fisherexp.methods.compression.m_fac_pruning import MFACPruning
from fisherexp.methods.compression.obs import Blocks, saliency
from fisherexp.methods.compression.pruning import lowest
from fisherexp.methods.compression.wood_fisher import DenseBlocks, WoodFisher
from fisherexp.methods.recipe import Recipe

M, N, DAMPING = 12, 30, 1e-3
torch.manual_seed(0)
G = torch.randn(M, N, dtype=torch.float64)
W = torch.randn(N, dtype=torch.float64)
F = DAMPING * torch.eye(N, dtype=torch.float64) + G.T @ G / M


def block_inverse(size):
    return torch.block_diag(*(torch.linalg.inv(F[i : i + size, i : i + size]) for i in range(0, N, size)))


def made(model: nn.Module | None = None, **options) -> WoodFisher:
    model = nn.Linear(6, 5).double() if model is None else model
    given = {"sparsities": [0.5], "recomputations": 1, "gradients": M, "gradient_batch": 1, "damping": DAMPING}
    return WoodFisher(model, **given, finetune=Recipe(epochs=0), **options)


@pytest.mark.parametrize("size", [1, 7, 10, 30, 50])
@pytest.mark.parametrize("kind", [Blocks, DenseBlocks])
def test_blocks_are_those_of_the_dense_matrix(kind, size):
    fisher, expected, x = kind(G, DAMPING, size), block_inverse(size), torch.randn(N, dtype=torch.float64)
    torch.testing.assert_close(fisher.inverse_diagonal(), expected.diagonal(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(fisher.solve(x), expected @ x, atol=1e-8, rtol=1e-8)


def test_blocks_of_one_weight_are_the_diagonal_formula():
    found = saliency(W, DenseBlocks(G, DAMPING, 1).inverse_diagonal())
    torch.testing.assert_close(found, diagonal_saliency(W, G.square().mean(dim=0), DAMPING))


@pytest.mark.parametrize("block", [5, 30])
def test_m_fac_in_blocks_is_wood_fisher(block):
    options = {"sparsities": [0.5], "recomputations": 1, "gradients": M, "gradient_batch": 1, "damping": DAMPING}
    options |= {"block": block, "update": "individual", "finetune": Recipe(epochs=0)}
    m_fac = MFACPruning(nn.Linear(6, 5).double(), **options)
    wood = made(block=block, first_order=False)
    (one, dropped), (other, also) = m_fac.surgery(W, G, 9), wood.surgery(W, G, 9)
    assert torch.equal(dropped, also)
    torch.testing.assert_close(one, other, atol=1e-8, rtol=0)


def test_wood_taylor_solves_the_quadratic_with_its_gradient():
    """min g^T δ + δ^T F δ / 2 under δ_p = -w_p, for every p: the cheapest is dropped."""
    wood = made(block=N, first_order=True)
    g, costs, deltas = G.mean(dim=0), [], []
    for p in range(N):
        free = [i for i in range(N) if i != p]
        delta = torch.zeros(N, dtype=torch.float64)
        delta[p] = -W[p]
        delta[free] = torch.linalg.solve(F[free][:, free], -g[free] + F[free, p] * W[p])
        costs.append((g @ delta + delta @ F @ delta / 2).item())
        deltas.append(delta)
    updated, dropped = wood.surgery(W, G, 1)
    assert dropped.tolist() == [min(range(N), key=costs.__getitem__)]
    expected = (W + deltas[dropped.item()]).index_fill(0, dropped, 0.0)
    torch.testing.assert_close(updated, expected, atol=1e-8, rtol=0)


def official(layers, gradients, first_order):
    """Saliency of all layers together: the code's four terms, blocks of 5, minus the smallest of the layer."""
    found = []
    for w, rows in zip(layers, gradients, strict=True):
        fisher = DAMPING * torch.eye(len(w), dtype=torch.float64) + rows.T @ rows / M
        blocks = [fisher[i : i + 5, i : i + 5] for i in range(0, len(w), 5)]
        inverse = torch.block_diag(*map(torch.linalg.inv, blocks))
        diagonal, g = inverse.diagonal(), rows.mean(0)
        u = inverse @ g if first_order else torch.zeros_like(g)
        scores = w**2 / diagonal / 2 + u**2 / diagonal / 2 - g @ u / 2 - w * u / diagonal
        found.append(scores - scores.min() + 1e-10)
    return torch.cat(found)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(("choice", "theirs"), [("subtract", True), ("keep", False)])
def test_layers_are_compared_above_their_least_as_in_the_official_code(first_order, choice, theirs):
    """The second layer's weights are large and nearly equal, so each is dear, but not above the least of them. Then
    again where two thirds of the first are gone: layers are those of the weights that are left."""
    model = nn.Sequential(nn.Linear(5, 3, bias=False), nn.Linear(3, 5, bias=False)).double()
    gradients = G * torch.tensor([0.1, 1e-4], dtype=torch.float64).repeat_interleave(15)
    weights = torch.cat([W[:15], 10 + 1e-3 * W[15:]])
    for first in (15, 5):
        wood = made(model, block=5, first_order=first_order, layer_minimum=choice)
        wood.kept[: 15 - first] = False
        w, rows = weights[15 - first :], gradients[:, 15 - first :]
        scores = official(w.split([first, 15]), rows.split([first, 15], 1), first_order)
        _, dropped = wood.surgery(w, rows, 9)
        assert (set(dropped.tolist()) == set(lowest(scores, 9).tolist())) == theirs


@pytest.mark.parametrize("first_order", [False, True])
def test_without_gradients_it_is_magnitude_pruning(first_order):
    updated, dropped = made(block=4, first_order=first_order).surgery(W, torch.zeros_like(G), 9)
    assert torch.equal(dropped, lowest(W.abs(), 9))
    torch.testing.assert_close(updated, W.index_fill(0, dropped, 0.0))
