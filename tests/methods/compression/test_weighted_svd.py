"""Weighted SVD: special cases, optimality in the weighted norm, and weights from a Fisher."""

import pytest
import torch

from fisherexp.methods.compression.weighted_svd import fisher_scales, weighted_svd

torch.manual_seed(0)
W = torch.randn(9, 6, dtype=torch.float64)
ROW, COL = torch.rand(9, dtype=torch.float64) + 0.1, torch.rand(6, dtype=torch.float64) + 0.1
ONES = torch.ones(9, dtype=torch.float64), torch.ones(6, dtype=torch.float64)


def error(left, right, row=ROW, col=COL):
    return (row[:, None] * (W - left @ right) * col).square().sum().item()


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_constant_weights_are_the_plain_svd_and_their_scale_does_not_matter(rank):
    u, s, vh = torch.linalg.svd(W)
    expected = u[:, :rank] * s[:rank] @ vh[:rank]
    for row, col in (ONES, (7 * ONES[0], 0.1 * ONES[1])):
        left, right = weighted_svd(W, row, col, rank)
        torch.testing.assert_close(left @ right, expected)
    once, scaled = weighted_svd(W, ROW, COL, rank), weighted_svd(W, 49 * ROW, COL, rank)
    torch.testing.assert_close(scaled[0] @ scaled[1], once[0] @ once[1])


@pytest.mark.parametrize("rank", [6, 50])
def test_full_rank_is_the_matrix(rank):
    left, right = weighted_svd(W, ROW, COL, rank)
    assert left.shape == (9, 6)
    torch.testing.assert_close(left @ right, W)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_it_is_the_best_in_its_own_norm(rank):
    """Its error is the tail of the weighted spectrum; the plain SVD does worse there and better without weights."""
    weighted, plain = weighted_svd(W, ROW, COL, rank), weighted_svd(W, *ONES, rank)
    tail = torch.linalg.svdvals(ROW[:, None] * W * COL)[rank:].square().sum().item()
    assert error(*weighted) == pytest.approx(tail)
    assert error(*weighted) < error(*plain)
    assert error(*weighted, *ONES) > error(*plain, *ONES)


def test_scales_are_roots_of_means_along_the_axis_and_dead_units_count_a_little():
    fisher = torch.rand(9, 6, dtype=torch.float64)
    fisher[2] = 0
    rows, cols = fisher.mean(dim=1) / fisher.mean(), fisher.mean(dim=0) / fisher.mean()
    rows[2] = 1e-6
    expected = {"out": (rows.sqrt(), ONES[1]), "in": (ONES[0], cols.sqrt()), "two_sided": (rows.sqrt(), cols.sqrt())}
    for axis, (row, col) in expected.items():
        found = fisher_scales(fisher, axis)
        torch.testing.assert_close(found[0], row)
        torch.testing.assert_close(found[1], col)


@pytest.mark.parametrize("axis", ["out", "in", "two_sided"])
def test_the_scale_of_the_fisher_is_in_no_factor(axis):
    """Fine-tuning has one learning rate for both; the paper's B is V^T, of unit rows."""
    fisher = torch.rand(9, 6, dtype=torch.float64)
    factors = weighted_svd(W, *fisher_scales(fisher, axis), 3)
    for found, expected in zip(weighted_svd(W, *fisher_scales(1e-8 * fisher, axis), 3), factors, strict=True):
        torch.testing.assert_close(found, expected)
    assert 0.5 < factors[0].norm() / factors[1].norm() < 2


def test_without_any_fisher_all_count_alike():
    for scales in fisher_scales(torch.zeros(9, 6), "two_sided"):
        assert (scales == 1).all()
