"""Low-rank factors in closed form against brute force, Eckart and Young, and each other; alternation; activations."""

import pytest
import torch

from fisherexp.quantization import (
    Integer,
    Root,
    alternate,
    fake_quantize,
    iterates,
    psd_root,
    weighted_low_rank,
)

torch.manual_seed(0)
D = torch.randn(9, 12, dtype=torch.float64)
X = torch.randn(200, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
R, G = X.T @ X / len(X), (lambda g: g @ g.T)(torch.randn(9, 9, dtype=torch.float64))


def lost(product: torch.Tensor, inputs: torch.Tensor = R, outputs: torch.Tensor | None = None) -> torch.Tensor:
    """tr(L Δ R Δᵀ)."""
    delta = D - product
    return ((delta @ inputs) * (delta if outputs is None else outputs @ delta)).sum()


@pytest.mark.parametrize("outputs", [None, G])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_loss_is_that_of_the_singular_values_left_out_and_descent_finds_none_below(rank, outputs):
    left = None if outputs is None else psd_root(outputs)
    up, down = weighted_low_rank(D, rank, psd_root(R), left)
    found = lost(up @ down, outputs=outputs)
    whitened = D @ psd_root(R).root if left is None else left.root.T @ D @ psd_root(R).root
    torch.testing.assert_close(found, torch.linalg.svdvals(whitened)[rank:].square().sum(), rtol=1e-9, atol=1e-9)
    if rank == 3:
        tried = [(t + torch.randn(t.shape).double() / 3).contiguous().requires_grad_() for t in (up, down)]
        optimizer = torch.optim.LBFGS(tried, max_iter=400, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

        def closure():
            optimizer.zero_grad()
            loss = lost(tried[0] @ tried[1], outputs=outputs)
            loss.backward()
            return loss

        optimizer.step(closure)
        torch.testing.assert_close(lost(tried[0] @ tried[1], outputs=outputs).detach(), found, rtol=1e-4, atol=1e-6)


def test_the_squared_loss_is_that_of_the_outputs_themselves():
    up, down = weighted_low_rank(D, 3, psd_root(R))
    torch.testing.assert_close(lost(up @ down), (X @ (D - up @ down).T).square().sum() / len(X))


def test_any_root_gives_the_same_product():
    """QERA's symmetric root, EoRA's eigenvectors times roots, and Cholesky's of SVD-LLM."""
    lower = torch.linalg.cholesky(R)
    roots = [psd_root(R), psd_root(R, symmetric=False), Root(lower, torch.linalg.inv(lower))]
    for root in roots:
        torch.testing.assert_close(root.root @ root.root.T, R)
    products = [torch.matmul(*weighted_low_rank(D, 4, root)) for root in roots]
    for product in products[1:]:
        torch.testing.assert_close(product, products[0])


def test_identity_is_the_plain_svd_a_scale_changes_nothing_and_full_rank_loses_nothing():
    left, values, right = torch.linalg.svd(D)
    plain = (left[:, :4] * values[:4]) @ right[:4]
    torch.testing.assert_close(torch.matmul(*weighted_low_rank(D, 4)), plain)
    torch.testing.assert_close(torch.matmul(*weighted_low_rank(D, 4, psd_root(torch.eye(12)))), plain)
    by_scale = [torch.matmul(*weighted_low_rank(D, 4, psd_root(c * R))) for c in (1.0, 1e6)]
    torch.testing.assert_close(*by_scale)
    assert not torch.allclose(by_scale[0], plain, atol=1e-2)  # the control
    torch.testing.assert_close(torch.matmul(*weighted_low_rank(D, 99, psd_root(R))), D)
    losses = [lost(torch.matmul(*weighted_low_rank(D, r, psd_root(R)))).item() for r in range(1, 10)]
    assert losses == sorted(losses, reverse=True)


def test_a_diagonal_matrix_and_its_diagonal_are_the_same_weights():
    squares = R.diagonal()
    one, other = (torch.matmul(*weighted_low_rank(D, 3, psd_root(m))) for m in (squares, torch.diag(squares)))
    torch.testing.assert_close(one, other)


def test_directions_without_inputs_are_left_out_and_the_outputs_lose_no_more_for_it():
    x = X.clone()
    x[:, [2, 7]] = 0
    singular = x.T @ x / len(x)
    up, down = weighted_low_rank(D, 3, psd_root(singular))
    assert up.isfinite().all()
    assert (down[:, [2, 7]].abs() < 1e-12).all()
    best = torch.linalg.svdvals(x @ D.T / len(x) ** 0.5)[3:].square().sum()
    torch.testing.assert_close(lost(up @ down, singular), best)


@pytest.mark.parametrize("diagonal", [True, False])
def test_beside_one_large_input_all_others_still_count(diagonal):
    """As in language models: one of 1000 inputs is 300 times as large. Against the best of that rank."""
    torch.manual_seed(0)
    sizes = torch.ones(1000, dtype=torch.float64)
    sizes[0] = 300
    weight = torch.randn(16, 1000, dtype=torch.float64)
    mixed = torch.eye(1000, dtype=torch.float64)
    if not diagonal:
        mixed += torch.randn(1000, 1000, dtype=torch.float64) / 100
    lower = sizes[:, None] * mixed
    moment = lower @ lower.T
    up, down = weighted_low_rank(weight, 4, psd_root(moment.diagonal() if diagonal else moment))
    rest = ((weight - up @ down) @ lower).square().sum()
    torch.testing.assert_close(rest, torch.linalg.svdvals(weight @ lower)[4:].square().sum())


def test_loftq_takes_the_factors_of_its_last_rounding_and_svdquant_the_best_of_its_errors():
    form = Integer(2, None, scale_type="float64")

    def low_rank(rest):
        return weighted_low_rank(rest, 2)

    first, errors = alternate(D, form, low_rank, 1)
    assert errors == []
    assert [torch.equal(first.up, each.up) for each in iterates(D, form, low_rank, 2)] == [True, False]
    assert torch.equal(first.quantized, form(D))
    second, _ = alternate(D, form, low_rank, 2)
    torch.testing.assert_close(second.quantized, form(D - first.up @ first.down))
    torch.testing.assert_close(second.up @ second.down, torch.matmul(*low_rank(D - second.quantized)))

    def error(found):
        return (D - found.quantized - found.up @ found.down).norm().item()

    best, errors = alternate(D, form, low_rank, 50, error, low_rank_first=True)
    assert error(best) == min(errors)
    assert errors[:-1] == sorted(errors[:-1], reverse=True)
    torch.testing.assert_close(form.decode(best.parts, D.shape), form(D - best.up @ best.down))


@pytest.mark.parametrize("group", [None, 4, 5])
def test_activations_are_rounded_token_by_token_and_the_gradient_goes_straight_through(group):
    x = torch.randn(2, 3, 12, requires_grad=True)
    found = fake_quantize(x, 4, group)
    form = Integer(4, group, "symmetric_restricted", scale_type="float64")
    torch.testing.assert_close(found.detach().flatten(0, 1).double(), form(x.detach().flatten(0, 1).double()))
    weights = torch.randn(2, 3, 12)
    (found * weights).sum().backward()
    assert torch.equal(x.grad, weights)
    assert torch.equal(fake_quantize(torch.zeros(2, 4), 4), torch.zeros(2, 4))


def test_the_randomized_svd_loses_hardly_more_and_leaves_generators_alone():
    """Of a rounding error, whose singular values fall slowly; with one draw and no power iterations it loses more."""
    torch.manual_seed(0)
    weight, root = torch.randn(96, 128), torch.randn(128, 128).double() / torch.arange(1, 129)
    lost, inputs = weight - weight.mul(2).round().div(2), psd_root(root @ root.T)
    before = torch.get_rng_state()
    exact, randomized, again = (weighted_low_rank(lost, 8, inputs, svd=svd) for svd in ("exact", *2 * ["randomized"]))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, other) for one, other in zip(randomized, again, strict=True))
    error = lambda up, down: float(((lost.double() - up @ down) @ inputs.root).norm())  # noqa: E731
    assert 1 - 1e-9 <= error(*randomized) / error(*exact) < 1.0001
    assert randomized[0].shape == (96, 8)
    weighted = lost.double() @ inputs.root
    left = torch.svd_lowrank(weighted, 8, 0)[0]
    assert float((weighted - left @ (left.T @ weighted)).norm()) > 1.01 * error(*exact)
