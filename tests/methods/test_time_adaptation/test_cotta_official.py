"""CoTTA against its official code for ImageNet, written anew from what that computes, in double precision."""

import copy
from itertools import product

import pytest
import torch
from alone import CLASSES, SIDE, answers, drawn, images
from torch import nn

from fisherexp.methods.test_time_adaptation import cotta
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.models.classifier import Classifier

RATE = 0.5


class Positions(nn.Module):
    """A linear layer on pixels with learned positions: a parameter that is called neither weight nor bias."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(SIDE**2, generator=drawn(3)))
        self.layer = nn.Linear(SIDE**2, 6)

    def forward(self, x):
        return self.layer(x.flatten(1) + self.positions).tanh()


def network() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(Positions(), 6, CLASSES).double()


def official(model, batches, restore: bool):
    """The teacher's answers where no view is looked at; `restore`: every weight goes back after a step, or none."""
    student, teacher = copy.deepcopy(model), copy.deepcopy(model)
    moving = [p for m in student.modules() for n, p in m.named_parameters(recurse=False) if n in ("weight", "bias")]
    origin, found = [p.detach().clone() for p in moving], []
    optimizer = torch.optim.SGD(moving, RATE, 0.9)
    for batch in batches:
        z, answer = student(batch), teacher(batch).detach()
        loss = -0.5 * (answer.softmax(1) * z.log_softmax(1)).sum(1) - 0.5 * (z.softmax(1) * answer.log_softmax(1)).sum(
            1
        )
        optimizer.zero_grad()
        loss.mean(0).backward()
        optimizer.step()
        for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
            t.data = 0.5 * t.data + 0.5 * s.data
        for p, value in zip(moving, origin, strict=True):
            p.data = value.clone() if restore else p.data
        found.append(answer)
    return torch.cat(found)


@pytest.mark.parametrize("restore", [False, True])
def test_loss_and_parameters_are_those_of_the_official_code(restore):
    batches = [scale * batch for scale, batch in zip((1.0, 0.2) * 3, images(60).split(10), strict=True)]
    model, found = network(), {}
    for choice in product(("all", "weights_and_biases"), ("cross_entropy", "symmetric")):
        options = {"views": 1, "threshold": 0.0, "momentum": 0.5, "restore": float(restore), "flip": True}
        method = cotta.CoTTA(
            copy.deepcopy(model), UpdateRule("sgd", RATE, 0.9), **options, parameters=choice[0], loss=choice[1]
        )
        found[choice] = torch.cat(answers(method, batches))
    theirs = found.pop(("weights_and_biases", "symmetric"))
    torch.testing.assert_close(theirs, official(model, batches, restore), rtol=1e-10, atol=1e-10)
    assert all((logits - theirs).abs().max() > 1e-4 for logits in found.values())
