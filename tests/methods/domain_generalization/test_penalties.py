"""Every penalty against autograd or its definition in float64, with its gradients; and what all of them owe."""

from itertools import combinations

import domain_oracles as oracles
import pytest
import torch

from fisherexp.methods.domain_generalization.coral import coral_penalty
from fisherexp.methods.domain_generalization.domain import Domain, losses
from fisherexp.methods.domain_generalization.fishr import fishr_penalty, head_variances
from fisherexp.methods.domain_generalization.gradient_alignment import gradient_penalty
from fisherexp.methods.domain_generalization.hessian_exact import hessian_penalty
from fisherexp.methods.domain_generalization.hgp import hgp_penalty
from fisherexp.methods.domain_generalization.hutchinson import diagonal_estimate, hutchinson_penalty
from fisherexp.methods.domain_generalization.irm import irm_penalty
from fisherexp.methods.domain_generalization.mmd import mmd_penalty
from fisherexp.methods.domain_generalization.vrex import vrex_penalty

GAMMAS = [0.01, 1.0]
HEADS = ["softmax", "binary"]


def probes(count: int, theta, sets: int) -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(3)
    return [2.0 * torch.randint(2, (count, *theta.shape), generator=drawn).double() - 1 for _ in range(sets)]


def irm_by_scale(theta, data):
    """The published way: the gradient by a factor on the logits, (1/E) Σ_e of its square."""
    squares = []
    for h, y in data:
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(oracles.loss(scale * theta, h, y), scale, create_graph=True)
        squares.append(slope**2)
    return sum(squares) / len(squares)


def hgp_by_double_backward(theta, data, detach=False):
    """The published way: H g = ||g|| d||g|| / d theta."""

    def product(loss):
        (g,) = torch.autograd.grad(loss, theta, create_graph=True)
        norm = g.norm()
        (slope,) = torch.autograd.grad(norm, theta, create_graph=True)
        return norm * slope

    each = [oracles.loss(theta, *part) for part in data]
    return oracles.total_spread([product(x) for x in each], product(sum(each) / len(each)), detach)


def hutchinson_by_double_backward(theta, data, signs):
    def estimate(loss, z):
        (g,) = torch.autograd.grad(loss, theta, create_graph=True)
        return sum(row * torch.autograd.grad(g, theta, row, create_graph=True)[0] for row in z) / len(z)

    each = [oracles.loss(theta, *part) for part in data]
    mean, *own = signs
    parts = [estimate(x, z) for x, z in zip(each, own, strict=True)]
    return oracles.total_spread(parts, estimate(sum(each) / len(each), mean))


def variances(theta, data):
    found = []
    for h, y in data:
        rows = torch.stack([oracles.gradient(theta, h[i : i + 1], y[i : i + 1]) for i in range(len(y))])
        found.append(rows.var(dim=0, correction=0))
    return found


def mmd_by_definition(theta, data):
    def k(x, y):
        return sum(torch.exp(-g * (a - b).square().sum()) for g in GAMMAS for a in x for b in y) / (len(x) * len(y))

    pairs = list(combinations([h for h, _ in data], 2))
    return sum(k(x, x) + k(y, y) - 2 * k(x, y) for x, y in pairs) / len(pairs)


def coral_by_definition(theta, data):
    def moments(x):
        centered = x - x.mean(0)
        return x.mean(0), centered.T @ centered / (len(x) - 1)

    pairs = list(combinations([moments(h) for h, _ in data], 2))
    return sum(((a - b) ** 2).mean() + ((s - t) ** 2).mean() for (a, s), (b, t) in pairs) / len(pairs)


CASES = {
    "irm": (irm_penalty, irm_by_scale),
    "vrex": (vrex_penalty, lambda t, data: torch.stack([oracles.loss(t, *p) for p in data]).var(correction=0)),
    "gradient": (gradient_penalty, lambda t, data: oracles.total_spread([oracles.gradient(t, *p) for p in data])),
    "hgp": (hgp_penalty, hgp_by_double_backward),
    "hgp, detached center": (
        lambda domains: hgp_penalty(domains, detach=True),
        lambda t, data: hgp_by_double_backward(t, data, detach=True),
    ),
    "hessian": (hessian_penalty, lambda t, data: oracles.total_spread([oracles.hessian(t, *p) for p in data])),
    "hessian diagonal": (
        lambda domains: hessian_penalty(domains, diagonal=True),
        lambda t, data: oracles.total_spread([oracles.hessian(t, *p).diagonal() for p in data]),
    ),
    "fishr": (
        lambda domains: fishr_penalty(head_variances(domains)),
        lambda t, data: oracles.total_spread(variances(t, data)),
    ),
    "coral": (coral_penalty, coral_by_definition),
    "mmd": (lambda domains: mmd_penalty(domains, GAMMAS), mmd_by_definition),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name, head):
    penalty, oracle = CASES[name]
    theta, data = oracles.problem(head)
    of = [theta, *(h for h, _ in data)]
    found, expected = penalty(oracles.domains(theta, data)), oracle(theta, data)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(value, of, allow_unused=True) for value in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("head", HEADS)
def test_hutchinson_with_given_probes(head):
    theta, data = oracles.problem(head)
    signs = probes(4, theta, sets=4)
    found = hutchinson_penalty(oracles.domains(theta, data), signs)
    expected = hutchinson_by_double_backward(theta, data, signs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    for one, other in zip(
        torch.autograd.grad(found, [theta, data[0][0]]), torch.autograd.grad(expected, [theta, data[0][0]]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("head", "d"), [("softmax", 2), ("binary", 5)])
def test_all_sign_vectors_give_the_exact_diagonal(head, d):
    theta, data = oracles.problem(head, sizes=(6,), d=d, classes=3)
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * theta.numel())
    found = diagonal_estimate(oracles.domains(theta, data)[0], every.view(-1, *theta.shape))
    torch.testing.assert_close(found.flatten(), oracles.hessian(theta, *data[0]).diagonal(), rtol=1e-12, atol=1e-13)


def test_bias_of_independent_probes_and_of_shared_ones():
    """E[penalty] - exact: (1/R) Σ_e (||off H_e||² + ||off H||²); with shared probes (1/R) Σ_e ||off(H_e - H)||²."""
    theta, data = oracles.problem(sizes=(8, 9), d=3)
    with torch.no_grad():
        domains, rounds, count = oracles.domains(theta, data), 4000, 2
        drawn = torch.Generator().manual_seed(0)

        def draw(sets):
            return [2.0 * torch.randint(2, (count, *theta.shape), generator=drawn).double() - 1 for _ in range(sets)]

        values = {sets: [hutchinson_penalty(domains, draw(sets)) for _ in range(rounds)] for sets in (1, 3)}
    hessians = [oracles.hessian(theta, *part).detach() for part in data]
    mean = sum(hessians) / 2
    exact = hessian_penalty(domains, diagonal=True)

    def off(matrix):
        return (matrix - matrix.diagonal().diag()).square().sum()

    expected = {3: sum(off(h) + off(mean) for h in hessians), 1: sum(off(h - mean) for h in hessians)}
    for sets, bias in expected.items():
        found = torch.stack(values[sets])
        error = found.std() / rounds**0.5
        assert abs(found.mean() - exact - bias / count) < 4 * error
        assert error < 0.1 * bias / count  # a bias that was not there would be seen
    assert expected[1] < expected[3] / 5


@pytest.mark.parametrize("head", HEADS)
def test_irm_is_the_squared_projection_of_the_head_gradient_on_the_head(head):
    theta, data = oracles.problem(head)
    projections = [(theta * oracles.gradient(theta, *part)).sum() for part in data]
    expected = sum(x**2 for x in projections) / len(projections)
    torch.testing.assert_close(irm_penalty(oracles.domains(theta, data)), expected, rtol=1e-12, atol=1e-15)


def test_irm_of_equal_halves_is_irm():
    theta, data = oracles.problem(sizes=(4, 5))
    doubled = [(h.repeat_interleave(2, dim=0), y.repeat_interleave(2)) for h, y in data]
    found = irm_penalty(oracles.domains(theta, doubled), half_batches=True)
    torch.testing.assert_close(found, irm_penalty(oracles.domains(theta, data)), rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="two samples"):
        irm_penalty(
            [
                part._replace(features=part.features[:1], logits=part.logits[:1], labels=part.labels[:1])
                for part in oracles.domains(theta, data)
            ],
            half_batches=True,
        )


def test_sums_and_means_over_two_domains():
    theta, data = oracles.problem("binary", sizes=(5, 7))
    domains = oracles.domains(theta, data)
    first, second = losses(domains)
    torch.testing.assert_close(vrex_penalty(domains, "sum"), (first - second) ** 2)
    torch.testing.assert_close(vrex_penalty(domains, "mean"), (first - second) ** 2 / 4)
    v, w = variances(theta, data)
    torch.testing.assert_close(fishr_penalty(head_variances(domains)), ((v - w) ** 2).sum() / 2)
    torch.testing.assert_close(fishr_penalty(head_variances(domains), "mean"), ((v - w) ** 2).mean() / 4)
    for penalty in (gradient_penalty, hgp_penalty, hessian_penalty):
        torch.testing.assert_close(penalty(domains, "mean"), penalty(domains, "sum") / 2)


ALIGNMENTS = {name: CASES[name][0] for name in CASES if name != "irm"} | {
    "hutchinson, shared": lambda domains: hutchinson_penalty(domains, probes(3, torch.empty(3, 7), sets=1)),
}


@pytest.mark.parametrize("name", ALIGNMENTS)
@pytest.mark.parametrize("count", [1, 3])
def test_identical_domains_and_a_single_one_give_zero(name, count):
    theta, data = oracles.problem(sizes=(6,))
    found = ALIGNMENTS[name](oracles.domains(theta, data * count))
    assert abs(found.item()) < 1e-14  # rounding, relative to what is compared
    for gradient in torch.autograd.grad(found, [theta, data[0][0]], allow_unused=True):
        assert gradient is None or gradient.abs().max() < 1e-12


@pytest.mark.parametrize("name", [*CASES, "hutchinson, shared"])
def test_order_of_samples_and_of_domains_does_not_matter(name):
    penalty = (ALIGNMENTS | {"irm": irm_penalty})[name]
    theta, data = oracles.problem()
    drawn = torch.Generator().manual_seed(1)
    orders = [torch.randperm(len(y), generator=drawn) for _, y in data]
    turned = [(h[order], y[order]) for (h, y), order in zip(data, orders, strict=True)][::-1]
    found, other = penalty(oracles.domains(theta, data)), penalty(oracles.domains(theta, turned))
    torch.testing.assert_close(other, found, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_a_class_that_a_domain_lacks(name):
    theta, data = oracles.problem()
    data[0] = (data[0][0], torch.zeros_like(data[0][1]))
    assert CASES[name][0](oracles.domains(theta, data)).isfinite()


def test_coral_says_that_one_sample_has_no_covariance():
    lone = Domain(torch.zeros(1, 3), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="at least two samples"):
        coral_penalty([lone, lone])
