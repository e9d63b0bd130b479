"""A few labels: how many, of which classes, and what the other parts hold."""

import pytest
import torch

from fisherexp.data.digits import Digits
from fisherexp.scenarios.few_labels import FewLabels, balanced
from fisherexp.seeds import generator


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def test_labels_are_drawn_alike_of_every_class_and_everything_is_unlabelled(digits):
    setting, other = (FewLabels(40).setting(digits, seed) for seed in (0, 1))
    assert torch.bincount(setting.parts["train"].targets).tolist() == [4] * 10
    assert setting.checksum("unlabelled") == setting.checksum("unlabelled") == other.checksum("unlabelled")
    assert len(setting.parts["unlabelled"]) == len(digits.train)
    assert setting.checksum("train") != other.checksum("train")
    assert setting.checksum("train") == FewLabels(40).setting(digits, 0).checksum("train")
    there = {image.numpy().tobytes() for image in digits.train.inputs}
    assert {image.numpy().tobytes() for image in setting.parts["train"].inputs} <= there


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [1, 1, 1]), (6, [2, 2, 2]), (8, [3, 2, 3]), (11, [5, 2, 4]), (12, [6, 2, 4])]
)
def test_a_class_that_has_no_more_leaves_its_turns_to_the_others(count, expected):
    labels = torch.tensor([0] * 6 + [1] * 2 + [2] * 4)
    chosen = balanced(labels, count, generator("test"))
    assert chosen.unique().tolist() == chosen.tolist()
    assert torch.bincount(labels[chosen]).tolist() == expected


def test_more_labels_than_samples_are_refused(digits):
    with pytest.raises(ValueError, match=r"scenario\.labels=1201: there are only 1200"):
        FewLabels(1201).setting(digits, seed=0)
