"""LowRankFisher against the dense matrix in float64 and the published recursion."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import rows as rows_module
from fisherexp.curvature.low_rank import LowRankFisher, batch_gradients
from fisherexp.curvature.rows import row_gram

SHAPES = [(1, 9), (6, 20), (20, 6), (7, 7)]


def gradients(m, d, dtype=torch.float64, seed=0):
    return torch.randn(m, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense(g, damping, divisor=None):
    g = g.double()
    return damping * torch.eye(g.shape[1], dtype=torch.float64) + g.T @ g / (divisor or len(g))


def recursion(g, damping, x):
    """M-FAC's own form: v_i = F_{i-1}^-1 g_i one by one, F^-1 x = x/lambda - sum v_i (v_i.x)/c_i."""
    vs, cs = [], []
    for row in g:
        v = row / damping
        for u, c in zip(vs, cs, strict=True):
            v = v - u * (u @ row) / c
        vs.append(v)
        cs.append(len(g) + row @ v)
    return x / damping - sum(v * (v @ x) / c for v, c in zip(vs, cs, strict=True))


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 column blocks"])
def threads(request, monkeypatch):
    monkeypatch.setattr(rows_module.torch, "get_num_threads", lambda: request.param)
    monkeypatch.setattr(rows_module, "GRAM_COLUMNS", 4)
    monkeypatch.setattr(rows_module, "VECTOR_COLUMNS", 8)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("divisor", [None, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_query_equals_the_dense_matrix(shape, divisor):
    g = gradients(*shape)
    fisher, matrix = LowRankFisher(g, divisor=divisor), dense(g, 0.1, divisor)
    undamped = dense(g, 0.0, divisor)
    inverse = matrix.inverse()
    x, many = torch.randn(shape[1]).double(), torch.randn(shape[1], 3).double()
    close = {"rtol": 1e-10, "atol": 1e-11}
    for rhs in (x, many):
        torch.testing.assert_close(fisher.matvec(rhs), undamped @ rhs, **close)
        torch.testing.assert_close(fisher.solve(rhs, 0.1), inverse @ rhs, **close)
    a = torch.randn(shape[0]).double()
    torch.testing.assert_close(fisher.solve_rows(a, 0.1), inverse @ (g.T @ a), **close)
    torch.testing.assert_close(fisher.diagonal(), undamped.diagonal(), **close)
    torch.testing.assert_close(fisher.inverse_diagonal(0.1), inverse.diagonal(), **close)
    for i, j in ((0, 0), (1, 3), (-1, shape[1] - 1)):
        torch.testing.assert_close(fisher.element(i, j), undamped[i, j].item(), **close)
        torch.testing.assert_close(fisher.inverse_element(i, j, 0.1), inverse[i, j].item(), **close)


def test_solve_equals_the_published_recursion_in_any_row_order():
    g, x = gradients(12, 30), torch.randn(30).double()
    expected = recursion(g, 1e-3, x)
    torch.testing.assert_close(LowRankFisher(g).solve(x, 1e-3), expected, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(LowRankFisher(g.flip(0)).solve(x, 1e-3), expected, rtol=1e-10, atol=1e-9)


def test_one_row_and_large_damping_have_closed_forms():
    g = gradients(1, 15)
    expected = g[0] / (0.2 + g[0].square().sum())
    torch.testing.assert_close(LowRankFisher(g).solve(g[0], 0.2), expected)
    x = torch.randn(15).double()
    torch.testing.assert_close(LowRankFisher(gradients(4, 15)).solve(x, 1e12) * 1e12, x)


def test_float32_rows_with_a_small_damping():
    g = gradients(64, 3000, torch.float32) / 3000**0.5
    fisher, inverse = LowRankFisher(g.clone()), dense(g, 1e-5).inverse()
    x = gradients(1, 3000, torch.float32, seed=1)[0]
    exact = inverse @ x.double()
    assert (fisher.solve(x, 1e-5).double() - exact).norm() < 1e-5 * exact.norm()
    # Within the span of the rows only the form without a difference keeps its digits.
    exact = inverse @ g[3].double()
    one_hot = torch.eye(64)[3]
    assert (fisher.solve_rows(one_hot, 1e-5).double() - exact).norm() < 1e-6 * exact.norm()
    diagonal = fisher.inverse_diagonal(1e-5).double()
    assert (diagonal > 0).all()
    torch.testing.assert_close(diagonal, inverse.diagonal(), rtol=1e-6, atol=0)


def test_inverse_diagonal_stays_positive_where_float32_would_not():
    g = gradients(40, 20, torch.float32) * 100
    exact = dense(g, 1e-5).inverse().diagonal()
    torch.testing.assert_close(LowRankFisher(g).inverse_diagonal(1e-5).double(), exact, rtol=1e-4, atol=0)
    with pytest.raises(FloatingPointError, match="raise damping"):
        LowRankFisher(g * 1e4).inverse_diagonal(1e-13)


@pytest.mark.parametrize("m", [3, 65, 200])
def test_gram_is_more_accurate_than_a_float32_product(m):
    g = torch.rand(m, 20_000, generator=torch.Generator().manual_seed(0))
    exact = g.double() @ g.double().T
    gram = row_gram(g)
    assert torch.equal(gram, gram.T)
    assert (gram - exact).abs().max() < (g @ g.T - exact).abs().max()
    torch.testing.assert_close(row_gram(g, torch.float64), exact, rtol=1e-13, atol=0)
    fisher = LowRankFisher(g)
    fisher.replace_row(g[-1].clone())
    torch.testing.assert_close(fisher.gram[0], exact[-1][[-1, *range(1, m)]], rtol=5e-6, atol=0)


def test_ring_buffer_equals_a_fresh_window():
    g, x = gradients(11, 30), torch.randn(30).double()
    fisher = LowRankFisher.empty(4, 30, dtype=torch.float64)
    torch.testing.assert_close(fisher.solve(x, 0.1), x / 0.1)
    for step, row in enumerate(g):
        assert fisher.replace_row(row) == step % 4
        window = torch.zeros(4, 30, dtype=torch.float64)
        recent = g[max(0, step - 3) : step + 1]
        window[: len(recent)] = recent
        matrix = dense(window, 0.1)
        torch.testing.assert_close(fisher.solve(x, 0.1), torch.linalg.solve(matrix, x), rtol=1e-9, atol=1e-10)
        newest = torch.eye(4)[step % 4]
        torch.testing.assert_close(
            fisher.solve_rows(newest, 0.1), torch.linalg.solve(matrix, row), rtol=1e-9, atol=1e-10
        )


def test_resuming_from_the_attributes_gives_the_same_bits():
    g = gradients(9, 30, torch.float32)
    whole = LowRankFisher.empty(4, 30)
    for row in g[:5]:
        whole.replace_row(row)
    resumed = LowRankFisher(whole.gradients.clone(), gram=whole.gram.clone(), cursor=whole.cursor)
    for row in g[5:]:
        whole.replace_row(row)
        resumed.replace_row(row)
    assert torch.equal(whole.solve(g[0], 1e-3), resumed.solve(g[0], 1e-3))


def test_from_batches_takes_matrices_rows_and_names():
    g = gradients(4, 6)
    named = {"w": g[3, :4].reshape(2, 2), "b": g[3, 4:]}
    fisher = LowRankFisher.from_batches([g[:2], g[2], named])
    assert torch.equal(fisher.gradients, g)


def test_batch_gradients_are_gradients_of_the_mean_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)).double()
    batches = [(torch.randn(n, 5).double(), torch.randint(0, 3, (n,))) for n in (4, 1)]
    before = {n: t.clone() for n, t in model.state_dict().items()}
    rows = list(batch_gradients(model, F.cross_entropy, batches))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model.training
    model.eval()
    for row, (x, y) in zip(rows, batches, strict=True):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        torch.testing.assert_close(row, torch.cat([p.grad.flatten() for p in model.parameters()]))
    fisher = LowRankFisher.from_batches(rows)
    assert fisher.dim == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda g: LowRankFisher(g[0]), ValueError, "matrix"),
        (lambda g: LowRankFisher(g).solve(g[0], 0.0), ValueError, "damping must be positive"),
        (lambda g: LowRankFisher(g, divisor=-1), ValueError, "divisor must be positive"),
        (
            lambda g: LowRankFisher(g.index_fill(0, torch.tensor([2]), torch.nan)),
            ValueError,
            r"rows \[2\]",
        ),
        (lambda g: LowRankFisher(g).solve(torch.ones(3), 0.1), ValueError, r"expected \(6,\)"),
        (
            lambda g: LowRankFisher(g).replace_row(torch.full((6,), torch.inf)),
            ValueError,
            "NaN or infinity",
        ),
        (lambda g: LowRankFisher(g).replace_row(torch.ones(5)), ValueError, r"gradient \(6,\)"),
        (lambda g: LowRankFisher.from_batches([]), ValueError, "no gradients"),
        (lambda g: LowRankFisher(g * 1e9).solve(g[0], 1e-18), FloatingPointError, "raise damping"),
    ],
)
def test_errors(call, error, match):
    g = torch.cat([gradients(4, 6), gradients(4, 6)])  # repeated rows: singular without damping
    with pytest.raises(error, match=match):
        call(g)
