"""The images and labels that EATA's anchor is computed from."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.tensors import TensorSet
from fisherexp.methods.test_time_adaptation.anchor import AnchorImportance
from fisherexp.scenarios.setting import Segment, Setting


def part(value, count=9):
    return TensorSet(torch.full((count, 1), float(value)), torch.arange(count))


PARTS = {name: part(n) for n, name in enumerate(("train", "test", "frozen", "stream"))}
VALIDATION = part(4)


def setting(validation):
    segments = (Segment(adapt=False), Segment())
    data = SimpleNamespace(validation=validation)
    return Setting(data, PARTS, ("frozen", "stream"), None, segments=segments)


@pytest.mark.parametrize(
    ("origin", "validation", "expected"),
    [
        ("clean", VALIDATION, VALIDATION),
        ("clean", None, PARTS["test"]),
        ("train", VALIDATION, PARTS["train"]),
        ("stream", VALIDATION, PARTS["stream"]),  # the first part that a method adapts on
    ],
)
def test_images_are_of_the_origin(origin, validation, expected):
    importance = AnchorImportance(origin=origin, samples=None)
    assert importance.images(setting(validation)) is expected
    some = dataclasses.replace(importance, samples=4).images(setting(validation))
    assert len(some) == 4
    assert (some.inputs == expected.inputs[0]).all()
    assert len(set(some.targets.tolist())) == 4
    assert (some.targets.tolist() == [0, 1, 2, 3]) == (origin == "stream")  # elsewhere they are drawn


@pytest.mark.parametrize("labels", ["empirical", "pseudo"])
def test_labels_are_those_that_are_named(labels):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double()
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randint(3, (7,))
    accumulator = AnchorImportance(labels=labels).accumulator(net, seed=0)
    accumulator.update(x, y)
    y = y if labels == "empirical" else net(x).argmax(1)
    expected = torch.zeros(4, dtype=torch.float64)
    for one, label in zip(x, y, strict=True):
        expected += torch.autograd.grad(F.cross_entropy(net(one[None]), label[None]), net[1].weight)[0].square() / 7
    found = accumulator.result()
    assert set(found.names) == {"1.weight", "1.bias"}
    torch.testing.assert_close(found["1.weight"], expected)
