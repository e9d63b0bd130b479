"""CMA against matrices by autograd in float64, and against the two penalties that it is made of."""

import domain_oracles as oracles
import pytest
import torch
from torch.nn import functional as F

from fisherexp.data.digits import Digits
from fisherexp.data.tensors import TensorSet
from fisherexp.methods.domain_generalization.cma import CMA, gradient_distances, hessian_distances, shares
from fisherexp.methods.domain_generalization.domain import Domain
from fisherexp.methods.domain_generalization.gradient_alignment import gradient_penalty
from fisherexp.methods.domain_generalization.hessian_exact import hessian_penalty
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting

HEADS = ["softmax", "binary"]
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def cma(alpha=3.0, beta=5.0, over="mean", **options):
    options = {"scaled": False, "gradient": "whole"} | options
    return CMA(torch.nn.Linear(1, 1), alpha, beta, training=Recipe(), penalty=Penalty(over=over), **options)


def explicit(theta, data):
    """Per domain ||g_e - mean g||² and ||H_e - mean H||_F² of the head's weight alone, from whole matrices."""
    rows, columns = theta.shape
    gradients = torch.stack([oracles.gradient(theta, *part)[:, :-1] for part in data])
    full = [oracles.hessian(theta, *part).reshape(rows, columns, rows, columns) for part in data]
    hessians = torch.stack([h[:, :-1, :, :-1] for h in full])
    return [(x - x.mean(0)).square().flatten(1).sum(1) for x in (gradients, hessians)]


@pytest.mark.parametrize("head", HEADS)
def test_distances_and_their_gradients(head):
    theta, data = oracles.problem(head)
    of = [theta, *(h for h, _ in data)]
    domains = oracles.domains(theta, data)
    found = gradient_distances(domains), hessian_distances(domains)
    for ours, oracle in zip(found, explicit(theta, data), strict=True):
        torch.testing.assert_close(ours, oracle, **CLOSE)
        weights = torch.arange(1.0, 4.0, dtype=torch.float64)  # each domain's distance counts by itself
        gradients = [torch.autograd.grad(weights @ value, of, retain_graph=True) for value in (ours, oracle)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("over", ["sum", "mean"])
@pytest.mark.parametrize("head", HEADS)
def test_domains_of_one_size_give_gradient_alignment_and_exact_hessians(head, over):
    """A bias is the weight of a feature that is always 1."""
    theta, data = oracles.problem(head, sizes=(6, 6, 6))
    domains = oracles.domains(theta, data)
    constant = [d._replace(features=F.pad(d.features, (0, 1), value=1.0)) for d in domains]
    expected = 5 * gradient_penalty(domains, over) + 3 * hessian_penalty(domains, over)
    torch.testing.assert_close(cma(over=over).misalignment(constant), expected, **CLOSE)


def test_larger_domains_count_more_and_losses_are_pooled():
    theta, data = oracles.problem(sizes=(2, 6, 4))
    domains = oracles.domains(theta, data)
    torch.testing.assert_close(shares(domains), torch.tensor([2, 6, 4], dtype=torch.float64) / 12)
    gradients, hessians = explicit(theta, data)
    expected = sum(n / 12 * (5 * g + 3 * h) for n, g, h in zip((2, 6, 4), gradients, hessians, strict=True))
    torch.testing.assert_close(cma().misalignment(domains), expected, **CLOSE)
    pooled = oracles.loss(theta, torch.cat([h for h, _ in data]), torch.cat([y for _, y in data]))
    torch.testing.assert_close(cma().risk(domains), pooled, **CLOSE)


def test_batches_of_one_size_count_as_the_domains_that_they_are_from():
    theta, data = oracles.problem(sizes=(4, 4, 4))
    domains = oracles.domains(theta, data)
    images = TensorSet(torch.zeros(48, 1, 2, 2, dtype=torch.uint8), torch.zeros(48, dtype=torch.int64))
    domain = torch.arange(3).repeat_interleave(torch.tensor([8, 24, 16]))
    method = cma()
    batches = method.batches(Setting(Digits(batch_size=4), {"domains": images.tagged(domain=domain)}, (), None))
    assert next(iter(batches)).tags["domain"].bincount().tolist() == [4, 4, 4]
    each = torch.stack([oracles.loss(theta, *part) for part in data])
    weights = torch.tensor([8, 24, 16], dtype=torch.float64) / 48
    torch.testing.assert_close(method.risk(domains), weights @ each, **CLOSE)
    gradients, hessians = explicit(theta, data)
    expected = sum(w * (5 * g + 3 * h) for w, g, h in zip(weights, gradients, hessians, strict=True))
    torch.testing.assert_close(method.misalignment(domains), expected, **CLOSE)


def test_scaling_of_the_code():
    theta, data = oracles.problem(d=6, classes=3)
    domains, plain, scaled = oracles.domains(theta, data), cma(), cma(scaled=True)
    torch.testing.assert_close(scaled.gradient_term(domains), plain.gradient_term(domains) / 6, **CLOSE)
    torch.testing.assert_close(scaled.hessian_term(domains), plain.hessian_term(domains) / 18**2, **CLOSE)


def test_the_official_gradient_is_that_of_class_0():
    theta, data = oracles.problem(classes=3)
    gradients = torch.stack([oracles.gradient(theta, *part)[0, :-1] for part in data])
    found = gradient_distances(oracles.domains(theta, data), rows=slice(1))
    torch.testing.assert_close(found, (gradients - gradients.mean(0)).square().sum(1), **CLOSE)


def test_with_two_classes_it_is_half_of_the_whole_and_all_of_a_sigmoid():
    theta, data = oracles.problem("binary")
    single = oracles.domains(theta, data)
    pair = [Domain(d.features, F.pad(d.logits, (1, 0)), d.labels) for d in single]
    official = cma(gradient="official").gradient_term(pair)
    torch.testing.assert_close(official, cma().gradient_term(pair) / 2, **CLOSE)
    for gradient in ("official", "whole"):
        torch.testing.assert_close(cma(gradient=gradient).gradient_term(single), official, **CLOSE)
