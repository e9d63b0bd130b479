"""LAME against its official code, written anew from what that computes, in double precision."""

import pytest
import torch
from alone import answers, images, network
from torch.nn import functional as F

from fisherexp.methods.test_time_adaptation.lame import LAME

SURE = 30.0  # confident enough for probabilities far below 1e-10


def official(model, batch, kind):
    """Probabilities: unaries -log(p + 1e-10), at most 100 steps, an end from the third on."""
    features = F.normalize(model.features(batch), dim=1)
    distances = (features[:, None] - features[None]).norm(dim=2)
    if kind == "linear":
        kernel = features @ features.T
    elif kind == "rbf":
        kernel = torch.exp(-(distances**2) / (2 * distances.sort(1).values[:, 4].mean() ** 2))
    else:
        kernel = torch.zeros_like(distances).scatter_(1, distances.topk(6, largest=False).indices[:, 1:], 1.0)
    unary = -torch.log(model(batch).softmax(1) + 1e-10)
    y, last = (-unary).softmax(1), float("inf")
    for step in range(100):
        pairwise = kernel @ y
        y = (pairwise - unary).softmax(1)
        energy = (unary * y - pairwise * y + y * y.clip(1e-20).log()).sum().item()
        if step > 1 and abs(energy - last) <= 1e-8 * abs(last):
            break
        last = energy
    return y


@pytest.mark.parametrize("kind", ["rbf", "knn", "linear"])
def test_with_its_floor_it_is_the_official_code(kind):
    batch, model = images(60), network(SURE).eval()
    with torch.no_grad():
        expected = official(model, batch, kind)
        assert (model(batch).softmax(1) < 1e-10).any()
    theirs, without = (answers(LAME(network(SURE), kind, 5, floor), [batch])[0] for floor in (1e-10, 0.0))
    torch.testing.assert_close(theirs.exp(), expected, rtol=1e-9, atol=1e-12)
    assert (without - theirs).abs().max() > 1


def test_only_an_affinity_to_many_can_overrule_what_has_no_probability():
    """The linear kernel of a batch adds tens to a logit: with the floor, a share of the classes differs."""
    batch = images(60)
    theirs, without = (answers(LAME(network(SURE), "linear", 5, floor), [batch])[0] for floor in (1e-10, 0.0))
    assert 0 < (theirs.argmax(1) != without.argmax(1)).float().mean() < 1
