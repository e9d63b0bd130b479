"""FILA: its factors against a weighted singular value decomposition, and what it is for equal rows and full rank."""

import pytest
import torch

from fisherexp.adapters import FILA, PiSSA
from fisherexp.adapters.fila import weighted_factors

torch.manual_seed(0)
WEIGHT = torch.randn(14, 10, dtype=torch.float64)
ROWS = torch.rand(14, dtype=torch.float64) * 5 + 0.1
CASES = pytest.mark.parametrize(("rank", "alpha"), [(3, None), (3, 6.0), (1, 0.5)])


def error(approximation: torch.Tensor) -> float:
    return (ROWS[:, None] * (WEIGHT - approximation)).norm().item()


@CASES
@pytest.mark.parametrize("svd", ["exact", "randomized"])
def test_the_weight_is_the_same_at_the_start(rank, alpha, svd):
    fila = FILA(WEIGHT, rank, alpha, importance=ROWS, svd=svd)
    assert torch.equal(fila.weight(WEIGHT), WEIGHT)
    left, right = fila.factors()
    assert (left @ right).abs().max() < 1e-12
    with torch.no_grad():
        fila.up.add_(1)  # the control
    assert not torch.equal(fila.weight(WEIGHT), WEIGHT)


@CASES
def test_what_is_taken_out_is_the_best_of_its_rank_in_the_weighted_norm(rank, alpha):
    fila = FILA(WEIGHT, rank, alpha, importance=ROWS)
    product = fila.scale * fila.up @ fila.down
    u, s, vt = torch.linalg.svd(ROWS[:, None] * WEIGHT, full_matrices=False)
    expected = (u[:, :rank] * s[:rank] @ vt[:rank]) / ROWS[:, None]
    torch.testing.assert_close(product, expected, rtol=1e-3, atol=1e-4)  # the guard 1e-5 beside w
    assert error(product) == pytest.approx(s[rank:].norm().item(), rel=1e-6)
    pissa = PiSSA(WEIGHT, rank, alpha)
    assert error(product) < 0.99 * error(pissa.scale * pissa.up @ pissa.down)  # the control: unweighted
    roots = torch.diag(s[:rank]) / fila.scale
    torch.testing.assert_close(fila.down @ fila.down.T, roots)


def test_equal_rows_are_pissa_and_full_rank_leaves_nothing():
    one, pissa = FILA(WEIGHT, 3, 6.0, importance=torch.ones(14)), PiSSA(WEIGHT, 3, 6.0)
    torch.testing.assert_close(one.up @ one.down, pissa.up @ pissa.down, rtol=2e-5, atol=1e-5)
    whole = FILA(WEIGHT, 10, 20.0, importance=ROWS)
    torch.testing.assert_close(whole.scale * whole.up @ whole.down, WEIGHT, rtol=2e-4, atol=1e-4)


def test_the_randomized_decomposition_is_torchs_without_oversampling():
    torch.manual_seed(5)
    up, down = weighted_factors(WEIGHT, ROWS, 3, "randomized")
    torch.manual_seed(5)
    u, s, v = torch.svd_lowrank(ROWS[:, None] * WEIGHT, q=3, niter=2)
    torch.testing.assert_close(up @ down, u * s @ v.T / (ROWS + 1e-5)[:, None])
    assert error(up @ down) > error(_exact(3))


def _exact(rank: int) -> torch.Tensor:
    up, down = weighted_factors(WEIGHT, ROWS, rank, "exact")
    return up @ down


def test_rows_that_do_not_matter_stay_out():
    rows = ROWS.clone()
    rows[4] = 0
    fila = FILA(WEIGHT, 3, importance=rows)
    assert fila.up[4].abs().max() < 1e-6
    assert torch.equal(fila.weight(WEIGHT), WEIGHT)


@pytest.mark.parametrize(
    ("rank", "importance", "words"),
    [
        (11, ROWS, "rank=11 is above 10"),
        (0, ROWS, "rank=0 must be at least 1"),
        (3, ROWS[:10], "the rows of a weight .14, 10. need one importance each"),
        (3, -ROWS, "none below zero"),
        (3, ROWS * float("nan"), "none below zero"),
    ],
)
def test_what_does_not_fit_is_one_line(rank, importance, words):
    with pytest.raises(ValueError, match=words):
        FILA(WEIGHT, rank, importance=importance)
