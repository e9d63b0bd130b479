"""Hutchinson's estimate: exact over all signs, unbiased, with an honest standard error."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature.head_hessian import head_hessian_diagonal, head_hessian_product
from fisherexp.curvature.hutchinson import hutchinson_diagonal, hutchinson_hessian_diagonal, rademacher
from fisherexp.curvature.vectors import ravel, unravel


def symmetric(dim=6, seed=0):
    a = torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a + a.T


def all_signs(like):
    flat = ravel(like)
    return [unravel(flat.new_tensor(s), like) for s in itertools.product((-1.0, 1.0), repeat=flat.numel())]


def tiny(sizes=(4, 3)):
    """A head with 6 parameters: all its sign vectors can be listed, and its Hessian has a closed form."""
    torch.manual_seed(1)
    model = nn.Linear(2, 2).double().train()
    batches = [(torch.randn(n, 2).double(), torch.randint(0, 2, (n,))) for n in sizes]
    return model, batches


def exact_diagonal(model, batches):
    x = torch.cat([x for x, _ in batches])
    diagonal = head_hessian_diagonal(x, model(x).detach())
    return {"weight": diagonal[:, :2], "bias": diagonal[:, 2]}


def test_all_sign_vectors_give_the_exact_diagonal():
    a = symmetric()
    estimate = hutchinson_diagonal(lambda v: a @ v, a[0], probes=all_signs(a[0]))
    torch.testing.assert_close(estimate.mean, a.diagonal(), rtol=1e-13, atol=1e-13)
    assert estimate.probes == 64


def test_diagonal_operator_needs_one_probe_and_has_no_error():
    scale = {"w": torch.rand(2, 3), "b": torch.rand(2)}
    estimate = hutchinson_diagonal(lambda v: {n: scale[n] * v[n] for n in v}, scale, 2)
    torch.testing.assert_close(estimate.mean, scale)
    assert all((e == 0).all() for e in estimate.standard_error.values())


def test_standard_error_is_the_off_diagonal_mass():
    a = symmetric()
    estimate = hutchinson_diagonal(lambda v: a @ v, a[0], 4000, generator=torch.Generator().manual_seed(0))
    off = a - torch.diag(a.diagonal())
    torch.testing.assert_close(estimate.standard_error, (off.square().sum(1) / 4000).sqrt(), rtol=0.1, atol=0)
    assert ((estimate.mean - a.diagonal()).abs() < 4 * estimate.standard_error).all()


def test_given_probes_are_reproduced_and_differentiable():
    features = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    like = torch.empty(3, 3, dtype=torch.float64)
    probes = [rademacher(like, torch.Generator().manual_seed(i)) for i in range(5)]

    def estimate(h):
        product = lambda v: head_hessian_product(h, h @ like.new_ones(2, 3), v)  # noqa: E731
        return hutchinson_diagonal(product, like, probes=probes).mean

    expected = sum(z * head_hessian_product(features, features @ like.new_ones(2, 3), z) for z in probes) / 5
    torch.testing.assert_close(estimate(features), expected)
    assert torch.autograd.gradcheck(estimate, (features,))


@pytest.mark.parametrize("gauss_newton", [False, True])  # the two coincide for a linear model
def test_model_over_all_sign_vectors(gauss_newton):
    model, batches = tiny()
    probes = all_signs(dict(model.named_parameters()))
    estimate = hutchinson_hessian_diagonal(model, F.cross_entropy, batches, probes=probes, gauss_newton=gauss_newton)
    torch.testing.assert_close(estimate.mean, exact_diagonal(model, batches), rtol=1e-12, atol=1e-13)
    assert model.training


def test_model_estimate_is_within_its_error():
    model, batches = tiny()
    generator = torch.Generator().manual_seed(0)
    estimate = hutchinson_hessian_diagonal(model, None, batches, 400, generator=generator)
    exact = exact_diagonal(model, batches)
    assert estimate.probes == 400
    for name, error in estimate.standard_error.items():
        assert ((estimate.mean[name] - exact[name]).abs() <= 4 * error).all()
        assert (error > 0).any()


@pytest.mark.parametrize("probes", [None, "given"])
def test_gradient_graph_is_built_once_per_batch(probes):
    model, batches = tiny()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    probes = probes and [rademacher(dict(model.named_parameters())) for _ in range(20)]
    hutchinson_hessian_diagonal(model, None, batches, 20, probes=probes)
    assert len(calls) == len(batches) + 2  # and twice on the first batch to see that it is deterministic


def test_parameters_choose_a_block():
    model, batches = tiny()
    probes = all_signs({"bias": model.bias})
    estimate = hutchinson_hessian_diagonal(model, None, batches, parameters=["bias"], probes=probes)
    assert list(estimate.mean) == ["bias"]
    torch.testing.assert_close(estimate.mean["bias"], exact_diagonal(model, batches)["bias"])


def test_one_probe_has_no_error_and_none_is_refused():
    a = symmetric()
    assert hutchinson_diagonal(lambda v: a @ v, a[0], 1).standard_error.isnan().all()
    with pytest.raises(ValueError, match="at least one probe"):
        hutchinson_diagonal(lambda v: a @ v, a[0], 0)
    model, batches = tiny()
    with pytest.raises(ValueError, match="no batches"):
        hutchinson_hessian_diagonal(model, None, [], 3)
    with pytest.raises(ValueError, match="at least one probe"):
        hutchinson_hessian_diagonal(model, None, batches, 0)


def test_signs_are_signs():
    z = rademacher({"a": torch.empty(500), "b": torch.empty(3, 2, dtype=torch.float64)})
    assert set(z["a"].tolist()) == {-1.0, 1.0}
    assert z["b"].dtype == torch.float64
    assert abs(z["a"].mean()) < 0.2
