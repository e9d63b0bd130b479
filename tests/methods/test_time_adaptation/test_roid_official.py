"""ROID against its authors' code, written anew from what that computes, in double precision."""

import copy
from itertools import product

import pytest
import torch
from alone import CLASSES, answers, images, network
from torch.nn import functional as F

from fisherexp.methods.test_time_adaptation import roid
from fisherexp.methods.test_time_adaptation.norms import affine_parameters, use_batch_statistics
from fisherexp.methods.test_time_adaptation.update import UpdateRule

RATE = 0.05
CHOICES = list(product(("every_answer", "updates"), ("batch", "batch_size")))


class Official:
    """Weights, step, ensembling and correction, for batches and for a buffer of single images."""

    def __init__(self, model, batch_size: int) -> None:
        self.model, self.batch_size = copy.deepcopy(model).eval(), batch_size
        use_batch_statistics(self.model)
        self.moving = list(affine_parameters(self.model).values())
        self.origin = [p.detach().clone() for p in self.moving]
        self.optimizer = torch.optim.SGD(self.moving, RATE, 0.9)
        self.mean = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)

    def update(self, batch):
        logits = self.model(batch)
        p = logits.softmax(1)
        with torch.no_grad():
            diverse = 1 - F.cosine_similarity(self.mean[None], p, dim=1)
            diverse = (diverse - diverse.min()) / (diverse.max() - diverse.min())
            left = diverse < diverse.mean()
            certain = (p * p.log()).sum(1)
            certain = (certain - certain.min()) / (certain.max() - certain.min())
            weights = torch.exp(diverse * certain * 3)
            weights[left] = 0
            self.mean = 0.9 * self.mean + 0.1 * p.mean(0)
        clipped = p.clamp(max=0.99)
        ratio = -(clipped * torch.log(clipped / (1 - clipped) + 1e-5)).sum(1)
        loss = (ratio * weights)[~left].sum() / self.batch_size
        other = self.model(batch[~left].flip(-1)).softmax(1)  # the view
        both = -0.5 * (other * p[~left].log() + p[~left] * other.log()).sum(1)
        loss = loss + (both * weights[~left]).sum() / self.batch_size
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for value, start in zip(self.moving, self.origin, strict=True):
            value.data = 0.99 * value.data + 0.01 * start
        prior = p.detach().mean(0)
        smooth = max(1 / len(p), 1 / CLASSES) / prior.max()
        return logits.detach() * (prior + smooth) / (1 + smooth * CLASSES)

    def one_by_one(self, window: int, stream):
        """The last `window` images at each step; learns from them once all of them are new."""
        buffer = []
        for number, image in enumerate(stream, start=1):
            buffer = [*buffer, image][-window:]
            batch = torch.cat(buffer)
            if number % window == 0:
                yield self.update(batch)[-1:]
            else:
                with torch.no_grad():
                    yield self.model(batch)[-1:]


def ours(batches, correct, over, **setting):
    options = {"temperature": 1 / 3, "ensembling": 0.99, "momentum": 0.9, "consistency": True, "flip": True}
    options |= {"prior_correction": "logits", "correct": correct, "over": over}
    return torch.cat(answers(roid.ROID(network(), UpdateRule("sgd", RATE, 0.9), **options), batches, **setting))


@pytest.fixture(autouse=True)
def mirrored_views(monkeypatch):
    monkeypatch.setattr(roid, "jittered", lambda images, *arguments, **options: images.flip(-1))


def agreeing(expected, found) -> list[tuple[str, str]]:
    return [c for c in CHOICES if torch.allclose(found[c], torch.cat(expected), rtol=1e-8, atol=1e-8)]


def test_batches_with_a_smaller_one_are_those_of_the_authors_code():
    batches = [*images(36).split(12), *images(17, 7).split(5)]
    official = Official(network(), 12)
    expected = [official.update(batch) for batch in batches]
    found = {choice: ours(batches, *choice, size=12) for choice in CHOICES}
    assert agreeing(expected, found) == [c for c in CHOICES if c[1] == "batch_size"]


def test_double_precision_that_the_trainer_sets_later():
    """What was put aside in single precision, as the source's weights, is used with what is double by then."""
    batches = list(images(24).split(12))
    options = {"temperature": 1 / 3, "ensembling": 0.99, "momentum": 0.9, "consistency": True, "flip": True}
    options |= {"prior_correction": "logits", "correct": "every_answer", "over": "batch"}
    method = roid.ROID(network().float(), UpdateRule("sgd", RATE, 0.9), **options)
    found = torch.cat(answers(method, batches))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, ours(batches, "every_answer", "batch"), rtol=1e-3, atol=1e-4)


def test_windows_of_single_images_are_those_of_the_authors_code():
    stream = list(images(20).split(1))
    expected = list(Official(network(), 1).one_by_one(6, stream))
    found = {choice: ours(stream, *choice, size=1, window=6) for choice in CHOICES}
    assert agreeing(expected, found) == [("updates", "batch_size")]
