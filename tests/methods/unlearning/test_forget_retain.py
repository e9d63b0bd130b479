"""Objectives of a forgotten and a retained term: their gradients in every option, against loops over single tokens."""

import math

import pytest
import torch
from tiny_tokens import FORGET, OBJECTIVE, TokenNet, gradients, mean_of_tokens, rows_of, taught, token_batch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.gradient_difference import GradientDifference
from fisherexp.methods.unlearning.kl_unlearning import KLUnlearning
from fisherexp.methods.unlearning.neggrad_plus import NeggradPlus
from fisherexp.methods.unlearning.npo import NPO, negative_preference
from fisherexp.methods.unlearning.simnpo import SimNPO

BATCH = token_batch()
GIVEN = {"forget_weight": 0.7, "retain_weight": 0.4, "epochs": 1, "lr": 1e-3, "weight_decay": 0.0}
SOURCE = 1  # the seed of the reference model


def log_sigmoid(x):
    return -(1 + (-x).exp()).log()


def ascent(rows, before, options):
    return -mean_of_tokens(rows)


def npo(rows, before, options):
    beta = options["beta"]
    each = [log_sigmoid(beta * (sum(row) - sum(old))) for row, old in zip(rows, before, strict=True)]
    return -2 / beta * sum(each) / len(each)


def simnpo(rows, before, options):
    beta, delta = options["beta"], options["delta"]
    each = [log_sigmoid(beta * (sum(row) / len(row) - delta)) for row in rows]
    return -2 / beta * sum(each) / len(each)


def kl(model, source, options):
    """Position by position, from the definition."""
    terms = []
    for tokens, targets in zip(BATCH.inputs[~FORGET], BATCH.targets[~FORGET], strict=True):
        for t, target in enumerate(targets.tolist()):
            if options["positions"] == "all" or target >= 0:
                p, q = (net(tokens[None])[0, t].softmax(-1) for net in (source, model))
                terms.append((p.detach() * (p.detach() / q).log()).sum())
    return torch.stack(terms).mean()


CASES = [
    (GradientDifference, ascent, {}),
    (KLUnlearning, ascent, {"positions": "all"}),
    (KLUnlearning, ascent, {"positions": "predicted"}),
    (NPO, npo, {"beta": 0.1}),
    (NPO, npo, {"beta": 2.0}),
    (SimNPO, simnpo, {"beta": 4.5, "delta": 0.0}),
    (SimNPO, simnpo, {"beta": 1.0, "delta": 0.5}),
]
WEIGHTS = [{}, {"forget_weight": 0.0}, {"retain_weight": 0.0}]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize(("cls", "term", "options"), CASES, ids=lambda case: getattr(case, "__name__", str(case)))
def test_gradient_is_that_of_the_definition(cls, term, options, weights):
    given = GIVEN | weights
    method = taught(cls(TokenNet(), **options, **given), SOURCE)
    plain, source = TokenNet(), TokenNet(SOURCE)
    before = [[loss.detach() for loss in row] for row in rows_of(source, BATCH, FORGET)]
    retained = kl(plain, source, options) if cls is KLUnlearning else mean_of_tokens(rows_of(plain, BATCH, ~FORGET))
    forgotten = term(rows_of(plain, BATCH, FORGET), before, options)
    expected = given["forget_weight"] * forgotten + given["retain_weight"] * retained
    found = method.loss(BATCH)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, method.model), gradients(expected, plain))


def test_cases_are_not_the_same():
    """The control: every objective and every option has a gradient of its own."""
    found = []
    for cls, _, options in CASES:
        method = taught(cls(TokenNet(), **options, **GIVEN), SOURCE)
        found.append(torch.cat([g.flatten() for g in gradients(method.loss(BATCH), method.model)]))
    assert all(not torch.allclose(one, other, rtol=1e-3) for n, one in enumerate(found) for other in found[:n])


def test_npo_is_gradient_ascent_at_the_source_and_for_a_small_beta():
    losses = torch.tensor([3.0, 8.0], dtype=torch.float64, requires_grad=True)
    (at_source,) = torch.autograd.grad(negative_preference(losses, losses.detach(), 0.1), losses)
    torch.testing.assert_close(at_source, torch.full_like(losses, -1 / 2))
    assert negative_preference(losses, losses, 0.1).item() == pytest.approx(2 * math.log(2) / 0.1)
    (small,) = torch.autograd.grad(negative_preference(losses, losses.detach() - 5, 1e-9), losses)
    torch.testing.assert_close(small, at_source)
    (far,) = torch.autograd.grad(negative_preference(losses, losses.detach() - 5, 2.0), losses)
    assert far.abs().max() < 1e-4  # the control: forgotten already


def test_simnpo_pushes_a_token_of_a_long_sequence_less():
    """(2/n_i) σ(-β (L_i / n_i - δ)) / B, by logits that give every token the same loss."""
    logits = torch.zeros(2, 6, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0, 1, -100, -100, -100, -100], [0, 1, 2, 3, 0, 1]])
    method = SimNPO(nn.Linear(1, 1), beta=2.0, delta=0.3, **GIVEN)
    gradient = torch.autograd.grad(method.forgotten(logits, Batch(None, targets)), logits)[0]
    push = torch.sigmoid(torch.tensor(-2.0 * (math.log(4) - 0.3))).item()
    for row, n in ((0, 2), (1, 6)):
        assert gradient[row, 0, 0].item() == pytest.approx(2 / n * push * (1 - 1 / 4) / 2)


def test_gradient_difference_is_neggrad_plus_up_to_a_factor():
    given = GIVEN | {"forget_weight": 0.3, "retain_weight": 0.3}
    one = taught(GradientDifference(TokenNet(), **given), 0)
    other = NeggradPlus(TokenNet(), 0.5, epochs=1, lr=1e-3, momentum=0.0, weight_decay=0.0)
    other.objective = OBJECTIVE
    torch.testing.assert_close(one.loss(BATCH), 0.6 * other.loss(BATCH))


def test_samples_with_a_class_are_taken_too():
    inputs, classes, forget = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6) < 2
    model = nn.Linear(4, 3)
    batch, losses = (
        Batch(inputs, classes, tags={"forgotten": forget}),
        F.cross_entropy(model(inputs), classes, reduction="none"),
    )
    found = SimNPO(model, beta=4.5, delta=0.0, **GIVEN).loss(batch)
    expected = -0.7 * 2 / 4.5 * F.logsigmoid(4.5 * losses[forget]).mean() + 0.4 * losses[~forget].mean()
    torch.testing.assert_close(found, expected)
