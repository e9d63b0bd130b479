"""Lanczos against dense eigenvalues in float64, and its degenerate cases."""

import pytest
import torch

from fisherexp.curvature.lanczos import extreme_eigenpairs
from fisherexp.curvature.vectors import ravel, unravel


def symmetric(eigenvalues, seed=0):
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    noise = torch.randn(len(values), len(values), dtype=torch.float64, generator=torch.manual_seed(seed))
    q = torch.linalg.qr(noise).Q
    return q @ torch.diag(values) @ q.T


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("k", [1, 4])
def test_matches_dense_eigenvalues(which, k):
    a = symmetric(torch.linspace(-7, 5, 80) ** 3 / 25)
    pairs = extreme_eigenpairs(lambda v: a @ v, a[0], k, which=which, tol=1e-9)
    dense = torch.linalg.eigvalsh(a)
    rank = {"largest": -dense, "smallest": dense, "magnitude": -dense.abs()}[which]
    torch.testing.assert_close(pairs.values, dense[rank.argsort()][:k], rtol=1e-10, atol=1e-10)
    assert pairs.converged
    for value, vector, residual in zip(pairs.values, pairs.vectors, pairs.residuals, strict=True):
        assert (a @ vector - value * vector).norm() <= residual + 1e-10
    stacked = torch.stack(pairs.vectors)
    torch.testing.assert_close(stacked @ stacked.T, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-10)


def test_stops_early_on_a_separated_eigenvalue():
    a = symmetric([100.0] + [1.0 / (i + 1) for i in range(499)])
    pairs = extreme_eigenpairs(lambda v: a @ v, a[0], tol=1e-4)
    assert pairs.products <= 6
    torch.testing.assert_close(pairs.values[0].item(), 100.0, rtol=1e-7, atol=0)


def test_parameter_dicts_give_the_flat_result():
    a = symmetric(range(12))
    like = {"weight": torch.empty(2, 5, dtype=torch.float64), "bias": torch.empty(2, dtype=torch.float64)}
    named = extreme_eigenpairs(lambda v: unravel(a @ ravel(v), like), like, 2, tol=1e-10)
    flat = extreme_eigenpairs(lambda v: a @ v, a[0], 2, tol=1e-10)
    torch.testing.assert_close(named.values, flat.values)
    assert {n: v.shape for n, v in named.vectors[0].items()} == {n: v.shape for n, v in like.items()}
    torch.testing.assert_close(ravel(named.vectors[0]), flat.vectors[0])


def test_more_vectors_than_the_first_allocation():
    a = symmetric(torch.linspace(0, 1, 120))
    pairs = extreme_eigenpairs(lambda v: a @ v, a[0], 3, tol=1e-10)
    assert pairs.products > 32
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(a).flip(0)[:3])


@pytest.mark.parametrize(
    ("eigenvalues", "k", "expected"),
    [
        ([0.0] * 6, 3, [0, 0, 0]),
        ([2.0, -1.0], 5, [2, -1]),
        ([3.0], 1, [3]),
        ([4.0, 0, 0, 0, 0, 0], 3, [4, 0, 0]),
        ([2.0] * 5, 3, [2, 2, 2]),
    ],
    ids=["zero operator", "dim < k", "one dimension", "rank one", "multiple of the identity"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_operators(eigenvalues, k, expected, dtype):
    a = symmetric(eigenvalues).to(dtype)
    pairs = extreme_eigenpairs(lambda v: a @ v, a[0], k)
    assert pairs.converged
    torch.testing.assert_close(pairs.values, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=1e-5)
    stacked = torch.stack(pairs.vectors)
    torch.testing.assert_close(stacked @ stacked.T, torch.eye(len(expected), dtype=dtype), atol=1e-5, rtol=0)


def test_generator_decides_the_start():
    a = symmetric(torch.linspace(0, 1, 60))

    def run(seed):
        return extreme_eigenpairs(lambda v: a @ v, a[0], generator=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(run(1).vectors[0], run(1).vectors[0], rtol=0, atol=0)
    assert not torch.equal(run(1).vectors[0], run(2).vectors[0])


def test_says_when_it_did_not_converge():
    a = symmetric(torch.linspace(0, 1, 100))
    with pytest.warns(UserWarning, match="max_products"):
        pairs = extreme_eigenpairs(lambda v: a @ v, a[0], tol=1e-12, max_products=5)
    assert not pairs.converged
    assert pairs.products == 5


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: extreme_eigenpairs(lambda v: v, torch.ones(3), 0), ValueError, "k >= 1"),
        (lambda: extreme_eigenpairs(lambda v: v, torch.ones(0)), ValueError, "non-empty"),
        (lambda: extreme_eigenpairs(lambda v: v, torch.ones(3), which="larges"), ValueError, "did you mean 'largest'"),
        (lambda: extreme_eigenpairs(lambda v: v * torch.nan, torch.ones(3)), FloatingPointError, "NaN"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
