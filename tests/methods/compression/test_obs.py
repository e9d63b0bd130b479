"""Optimal Brain Surgeon against dense matrices in float64: F^-1, saliency, both updates, blocks, special cases."""

import torch

from fisherexp.curvature import LowRankFisher
from fisherexp.methods.compression.obs import Blocks, group_update, individual_update, saliency

M, N, DAMPING = 12, 30, 1e-3
torch.manual_seed(0)
G = torch.randn(M, N, dtype=torch.float64)
W = torch.randn(N, dtype=torch.float64)
F = DAMPING * torch.eye(N, dtype=torch.float64) + G.T @ G / M
INVERSE = torch.linalg.inv(F)
DROPPED = torch.tensor([3, 4, 11, 25])


def recursion(gradients, damping):
    """M-FAC's static set-up, one rank-one update of F^-1 after the other."""
    inverse = torch.eye(gradients.shape[1], dtype=torch.float64) / damping
    for g in gradients:
        v = inverse @ g
        inverse = inverse - torch.outer(v, v) / (len(gradients) + g @ v)
    return inverse


def test_dynamic_is_static_is_dense():
    window = LowRankFisher.empty(M, N, dtype=torch.float64)
    for row in torch.cat([torch.randn(5, N, dtype=torch.float64), G]):
        window.replace_row(row)
    for inverse in (window.solve(torch.eye(N, dtype=torch.float64), DAMPING), recursion(G, DAMPING)):
        torch.testing.assert_close(inverse, INVERSE, atol=1e-10 / DAMPING, rtol=0)


def test_single_weight_update_solves_the_constrained_quadratic():
    """min δ^T F δ / 2 under δ_p = -w_p, by its KKT system."""
    for p in (0, 7, 29):
        constraint = torch.eye(N, dtype=torch.float64)[p]
        kkt = torch.zeros(N + 1, N + 1, dtype=torch.float64)
        kkt[:N, :N], kkt[:N, N], kkt[N, :N] = F, constraint, constraint
        delta = torch.linalg.solve(kkt, torch.cat([torch.zeros(N), -W[p : p + 1]]))[:N]
        fisher = Blocks(G, DAMPING, N)
        updated = individual_update(W, torch.tensor([p]), fisher, fisher.inverse_diagonal())
        torch.testing.assert_close(updated, (W + delta).index_fill(0, torch.tensor([p]), 0.0), atol=1e-8, rtol=0)
        torch.testing.assert_close(saliency(W, fisher.inverse_diagonal())[p], delta @ F @ delta / 2)
        torch.testing.assert_close(updated, group_update(W, torch.tensor([p]), G, DAMPING), atol=1e-8, rtol=0)


def test_group_update_is_that_of_the_dense_inverse():
    inner = torch.linalg.solve(INVERSE[DROPPED][:, DROPPED], W[DROPPED])
    expected = (W - INVERSE[:, DROPPED] @ inner).index_fill(0, DROPPED, 0.0)
    torch.testing.assert_close(group_update(W, DROPPED, G, DAMPING), expected, atol=1e-9, rtol=0)


def test_group_update_costs_less_than_individual_ones():
    fisher = Blocks(G, DAMPING, N)
    group = group_update(W, DROPPED, G, DAMPING) - W
    summed = individual_update(W, DROPPED, fisher, fisher.inverse_diagonal()) - W
    bare = W.index_fill(0, DROPPED, 0.0) - W
    assert group @ F @ group < min(summed @ F @ summed, bare @ F @ bare)


def test_updates_in_float32_with_the_published_damping_are_accurate():
    rows = 0.1 * torch.randn(M, N, dtype=torch.float64)
    dense = torch.linalg.inv(1e-5 * torch.eye(N, dtype=torch.float64) + rows.T @ rows / M)
    q = torch.zeros(N, dtype=torch.float64)
    q[DROPPED] = -W[DROPPED] / dense.diagonal()[DROPPED]
    expected = (W + dense @ q).index_fill(0, DROPPED, 0.0)
    fisher = Blocks(rows.float(), 1e-5, N)
    found = individual_update(W.float(), DROPPED, fisher, fisher.inverse_diagonal())
    torch.testing.assert_close(found.double(), expected, atol=1e-2, rtol=0)
    inner = torch.linalg.solve(dense[DROPPED][:, DROPPED], W[DROPPED])
    exact = (W - dense[:, DROPPED] @ inner).index_fill(0, DROPPED, 0.0)
    torch.testing.assert_close(group_update(W.float(), DROPPED, rows.float(), 1e-5).double(), exact, atol=1e-4, rtol=0)
