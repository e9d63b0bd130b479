"""One face of every curvature matrix: against the dense matrix, in both forms of a vector, and through SciPy."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg, eigsh
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import (
    KFAC,
    FisherDiagonal,
    LowRankAccumulator,
    LowRankFisher,
    extreme_eigenpairs,
    fisher_diagonal,
    ggn_operator,
    kfac,
)
from fisherexp.curvature.vectors import ravel, unravel

DAMPING = 0.1
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def identity(size):
    return torch.eye(size, dtype=torch.float64)


def network():
    torch.manual_seed(0)
    layers = [nn.Conv1d(2, 4, 2), nn.Tanh(), nn.Conv1d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(8, 3, bias=False)]
    return nn.Sequential(*layers).double()


def batch():
    return torch.randn(7, 2, 4).double(), torch.randint(0, 3, (7,))


def low_rank(model, data):
    rows = LowRankAccumulator(model, rows=7)
    rows.update(*data)
    return rows.result()


MATRICES = {
    "diagonal": lambda model, data: fisher_diagonal(model, [data]),
    "kfac": lambda model, data: kfac(model, [data]),
    "low rank": low_rank,
}


def dense(matrix):
    """The matrix from its parts, each by its own definition."""
    if isinstance(matrix, FisherDiagonal):
        return torch.diag(torch.cat([v.flatten() for v in matrix.values()]))
    if isinstance(matrix, LowRankFisher):
        return sum(torch.outer(g, g) for g in matrix.gradients) / len(matrix.gradients)
    assert isinstance(matrix, KFAC)
    blocks = []
    for f in matrix.factors.values():  # over (outputs, inputs + 1); a weight and then its bias in vectors
        order = torch.arange(f.b.numel() // f.b.shape[-1] * f.a.shape[-1]).reshape(*f.b.shape[:-1], -1)
        place = torch.cat([part.flatten() for part in f.by_name(order).values()])
        groups = [(f.b, f.a)] if f.a.dim() == 2 else zip(f.b, f.a, strict=True)
        blocks.append(torch.block_diag(*(torch.kron(b, a) for b, a in groups))[place][:, place])
    return torch.block_diag(*blocks)


@pytest.fixture(params=MATRICES)
def made(request):
    matrix = MATRICES[request.param](network(), batch())
    return matrix, dense(matrix)


def test_every_question_equals_the_dense_matrix(made):
    matrix, expected = made
    v = torch.randn(matrix.dim).double()
    damped = expected + DAMPING * identity(matrix.dim)
    torch.testing.assert_close(matrix.matvec(v), expected @ v, **CLOSE)
    torch.testing.assert_close(matrix.solve(v, DAMPING), torch.linalg.solve(damped, v), **CLOSE)
    torch.testing.assert_close(
        matrix.solve(v, 2.0), torch.linalg.solve(expected + 2 * identity(matrix.dim), v), **CLOSE
    )
    torch.testing.assert_close(matrix.quadratic(v), v @ expected @ v, **CLOSE)
    torch.testing.assert_close(matrix.diagonal(), expected.diagonal(), **CLOSE)
    torch.testing.assert_close(matrix.trace(), expected.trace(), **CLOSE)
    assert matrix.estimator.labels == "empirical"


def test_what_comes_in_goes_out(made):
    matrix, _ = made
    flat = torch.randn(matrix.dim).double()
    named = matrix.named(flat)
    shuffled = dict(reversed(named.items())) | {"elsewhere": torch.ones(3)}
    for ask in (matrix.matvec, lambda v: matrix.solve(v, DAMPING)):
        found = ask(shuffled)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in named.items()}
        torch.testing.assert_close(matrix.flat(found), ask(flat), **CLOSE)
    torch.testing.assert_close(matrix.quadratic(shuffled), matrix.quadratic(flat), **CLOSE)
    leaf = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(matrix.quadratic(leaf), leaf)
    torch.testing.assert_close(gradient, 2 * matrix.matvec(flat), **CLOSE)


def test_scipy_finds_eigenvalues_and_solutions(made):
    matrix, expected = made
    v = np.random.default_rng(0).normal(size=matrix.dim)
    assert matrix.linear_operator().dtype == np.float64
    largest = eigsh(matrix.linear_operator(), k=3, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(largest), np.linalg.eigvalsh(expected)[-3:], rtol=1e-9)
    found, failed = cg(matrix.linear_operator(DAMPING), v, rtol=1e-12)
    assert failed == 0
    np.testing.assert_allclose(found, np.linalg.solve(expected + DAMPING * np.eye(matrix.dim), v), rtol=1e-7, atol=1e-9)
    undamped, _ = cg(matrix.linear_operator(2 * DAMPING), v, rtol=1e-12)
    assert np.abs(undamped - found).max() > 1e-3  # the damping is that of the system


def test_its_own_lanczos_takes_it_as_it_is(made):
    matrix, expected = made
    found = extreme_eigenpairs(matrix, matrix.like, 1, tol=1e-10)
    torch.testing.assert_close(found.values[0], torch.linalg.eigvalsh(expected)[-1], rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", MATRICES)
def test_products_of_a_matrix_in_single_precision(kind):
    torch.manual_seed(1)
    x, y = batch()
    rounded, exact = MATRICES[kind](network().float(), (x.float(), y)), MATRICES[kind](network(), (x, y))
    v = np.random.default_rng(0).normal(size=exact.dim)
    expected = exact.linear_operator() @ v
    np.testing.assert_allclose(rounded.linear_operator() @ v, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: m.solve(torch.ones(m.dim), 0.0), r"damping must be positive.*solve\(vector, damping=1e-3\)"),
        (lambda m: m.solve(torch.ones(m.dim), float("nan")), "damping must be positive"),
        (
            lambda m: m.matvec(torch.ones(3)),
            r"expected \(\d+,\), a flat tensor, or tensors by the names .*got a tensor \(3,\)",
        ),
        (lambda m: m.quadratic({"0.weight": torch.ones(3)}), "got '0.weight' of shape"),
        (lambda m: m.matvec({"0.wieght": torch.ones(3)}), "got one without '0.weight'"),
    ],
)
def test_refusals_say_what_fits(made, call, match):
    with pytest.raises(ValueError, match=match):
        call(made[0])


def test_rows_without_names_ask_for_shapes():
    fisher = LowRankFisher(torch.randn(3, 5).double())
    with pytest.raises(ValueError, match=r"knows no names.*\(5,\).*shapes="):
        fisher.matvec({"w": torch.ones(5)})
    with pytest.raises(ValueError, match="shapes of 4 entries for 5 columns"):
        LowRankFisher(torch.randn(3, 5), shapes={"w": (2, 2)})


# --- where the Fisher is known in closed form ------------------------------------------------------------------------


def test_linear_gaussian_model():
    """y = W x + noise of unit variance: F = I ⊗ E[x xᵀ] whatever the labels, which KFAC reproduces exactly."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3, bias=False).double(), torch.randn(9, 4).double()
    expected = torch.kron(identity(3), x.T @ x / len(x))
    v = torch.randn(12).double()
    options = {"labels": "expected", "loss": "gaussian"}
    for approximation in ("expand", "reduce"):
        found = kfac(model, [(x,)], approximation=approximation, **options)
        torch.testing.assert_close(found.matvec(v), expected @ v, **CLOSE)
    torch.testing.assert_close(fisher_diagonal(model, [(x,)], **options).diagonal(), expected.diagonal(), **CLOSE)
    ggn = ggn_operator(model, "gaussian", [(x, torch.zeros(9, 3).double())])
    torch.testing.assert_close(ggn.matvec(v), expected @ v, **CLOSE)


def logistic(x, weight):
    """F = E[(diag p - p pᵀ) ⊗ x xᵀ] of softmax regression."""
    p = (x @ weight.T).softmax(-1)
    return sum(
        torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(a, a)) for q, a in zip(p, x, strict=True)
    ) / len(x)


def test_logistic_model():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3, bias=False).double(), torch.randn(9, 4).double(), torch.randint(0, 3, (9,))
    expected = logistic(x, model.weight.detach())
    found = fisher_diagonal(model, [(x,)], labels="expected")
    torch.testing.assert_close(found.diagonal(), expected.diagonal(), **CLOSE)
    v = torch.randn(12).double()
    torch.testing.assert_close(ggn_operator(model, None, [(x, y)]).matvec(v), expected @ v, **CLOSE)
    # One sample: a single Kronecker product, so KFAC is exact; of nine samples it is not.
    one = kfac(model, [(x[:1],)], labels="expected").matvec(v)
    torch.testing.assert_close(one, logistic(x[:1], model.weight.detach()) @ v, **CLOSE)
    assert (kfac(model, [(x,)], labels="expected").matvec(v) - expected @ v).abs().max() > 1e-3


def test_tokens_of_a_toy_language_model():
    """Logits of a position are a row of the embedding: per token the gradient is softmax - onehot in the row it met."""
    torch.manual_seed(0)
    model = nn.Embedding(5, 5).double()
    tokens, targets = torch.randint(0, 5, (3, 4)), torch.randint(0, 5, (3, 4))
    expected = torch.zeros(5, 5).double()
    for token, target in zip(tokens.flatten(), targets.flatten(), strict=True):
        expected[token] += (model.weight[token].detach().softmax(0) - F.one_hot(target, 5)).square() / 12
    found = fisher_diagonal(model, [(tokens, targets)], loss="token")
    torch.testing.assert_close(found["weight"], expected, **CLOSE)


def test_influence_by_explicit_inverse_and_by_conjugate_gradients():
    """-g_testᵀ (G + λ I)⁻¹ g_train for every pair: the dense inverse against CG on Gauss-Newton products."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3, bias=False).double(), torch.randn(9, 4).double(), torch.randint(0, 3, (9,))
    gradients = low_rank(model, (x[:7], y[:7])).gradients
    explicit = (
        -gradients[:2] @ torch.linalg.inv(logistic(x, model.weight.detach()) + DAMPING * identity(12)) @ gradients.T
    )
    operator = ggn_operator(model, None, [(x[:5], y[:5]), (x[5:], y[5:])]).linear_operator(DAMPING)
    solved = np.stack([cg(operator, g.numpy(), rtol=1e-12)[0] for g in gradients])
    np.testing.assert_allclose(-gradients[:2].numpy() @ solved.T, explicit, rtol=1e-8, atol=1e-10)


def test_influence_with_the_low_rank_fisher_is_that_of_its_dense_inverse():
    data = batch()
    fisher = low_rank(network(), data)
    expected = torch.linalg.solve(dense(fisher) + DAMPING * identity(fisher.dim), fisher.gradients.T)
    for number, row in enumerate(identity(7)):
        torch.testing.assert_close(fisher.solve(fisher.gradients[number], DAMPING), expected[:, number], **CLOSE)
        torch.testing.assert_close(fisher.solve_rows(row, DAMPING), expected[:, number], **CLOSE)


def test_ravel_and_unravel_are_inverse():
    named = {"a": torch.randn(2, 3), "b": torch.randn(4)}
    assert all(torch.equal(t, named[n]) for n, t in unravel(ravel(named), named).items())
