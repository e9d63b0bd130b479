"""Fewer classes for unsure samples: the vectorized rule against the published double loop, and its properties."""

import pytest
import torch
from torch.nn import functional as F

from fisherexp.methods.training.shrinking import shrunk, shrunk_losses

torch.manual_seed(0)
PROBABILITIES = (3 * torch.randn(200, 10, dtype=torch.float64)).softmax(1)
LOGITS = torch.randn(200, 10, dtype=torch.float64)


def by_loops(probabilities, logits, threshold):
    """Sample by sample, class by class, as the authors' code goes about it."""
    losses, chosen = torch.zeros(len(logits), dtype=logits.dtype), torch.zeros(len(logits), dtype=torch.bool)
    for number, (p, z) in enumerate(zip(probabilities, logits, strict=True)):
        ordered, order = p.sort(descending=True)
        if ordered[0] >= threshold:
            continue
        for cut in range(2, len(p)):
            if ordered[0] / (ordered[0] + ordered[cut:].sum()) >= threshold:
                kept = torch.cat([z[order[:1]], z[order[cut:]]])
                losses[number] = ordered[0] * F.cross_entropy(kept[None], torch.tensor([0]))
                chosen[number] = True
                break
    return losses, chosen


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 0.999])
def test_the_rule_is_that_of_the_loops(threshold):
    losses, chosen = shrunk_losses(PROBABILITIES, LOGITS, threshold)
    expected, which = by_loops(PROBABILITIES, LOGITS, threshold)
    torch.testing.assert_close(losses, expected)
    assert torch.equal(chosen, which)
    assert chosen.any()
    assert not chosen.all()


def test_sure_samples_stay_out_and_two_classes_leave_nothing_to_take_away():
    sure = PROBABILITIES.amax(1) >= 0.8
    chosen, _ = shrunk(PROBABILITIES, 0.8)
    assert sure.any()
    assert not (chosen & sure).any()
    chosen, _ = shrunk(PROBABILITIES[:, :2] / PROBABILITIES[:, :2].sum(1, keepdim=True), 0.999999)
    assert not chosen.any()


def test_as_few_classes_go_as_it_takes():
    chosen, kept = shrunk(PROBABILITIES, 0.9)
    p, kept = PROBABILITIES[chosen], kept[chosen]
    top = p.amax(1, keepdim=True)
    assert (kept & (p == top)).any(1).all()
    assert (top[:, 0] / (p * kept).sum(1) >= 0.9).all()
    weakest_gone = torch.where(kept, 1, p).amin(1, keepdim=True)
    with_one_more = kept | (p == weakest_gone)
    several = (~kept).sum(1) > 1  # one at least goes, whatever it takes
    assert several.any()
    assert (top[:, 0] / (p * with_one_more).sum(1) < 0.9)[several].all()


def test_factors_are_at_most_one_and_probabilities_get_no_gradient():
    probabilities, logits = PROBABILITIES.clone(), LOGITS.clone().requires_grad_()
    losses, chosen = shrunk_losses(probabilities, logits, 0.9)
    (gradient,) = torch.autograd.grad(losses.sum(), [logits])
    assert gradient[~chosen].abs().max() == 0
    top = probabilities.argmax(1)
    assert (gradient[chosen, top[chosen]] < 0).all()
    assert gradient.abs().max() <= 1
