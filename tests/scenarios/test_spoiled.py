"""Spoiled training data: how many samples are spoiled, how, and that all else stays as it was."""

import pytest
import torch

from fisherexp.data.digits import Digits
from fisherexp.scenarios.plain import Plain
from fisherexp.scenarios.spoiled import Duplicates, NoisyLabels


@pytest.fixture(scope="module")
def digits():
    return Digits(validation=0.1).load()


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_a_share_of_the_labels_is_wrong_and_every_other_class_comes_up(digits, fraction):
    setting = NoisyLabels(fraction).setting(digits, seed=0)
    train, wrong = setting.parts["train"], setting.parts["train"].tags["wrong"]
    assert int(wrong.sum()) == round(fraction * len(train))
    assert torch.equal(train.targets != digits.train.targets, wrong)
    assert torch.equal(train.inputs, digits.train.inputs)
    steps = (train.targets - digits.train.targets)[wrong] % 10
    assert set(steps.tolist()) == (set(range(1, 10)) if fraction else set())
    assert setting.altered


def test_copies_of_a_few_samples_that_stay_themselves_take_the_place_of_others(digits):
    setting = Duplicates(0.3, originals=4).setting(digits, seed=0)
    train, copy = setting.parts["train"], setting.parts["train"].tags["copy"]
    assert int(copy.sum()) == round(0.3 * len(train))
    assert torch.equal(train.inputs[~copy], digits.train.inputs[~copy])
    found = {image.numpy().tobytes() for image in train.inputs[copy]}
    assert len(found) == 4  # all images of digits differ
    assert found <= {image.numpy().tobytes() for image in train.inputs[~copy]}


@pytest.mark.parametrize("scenario", [NoisyLabels(), Duplicates()], ids=["labels", "copies"])
def test_what_is_evaluated_stays_and_the_seed_decides(digits, scenario):
    plain, first, same, other = (Plain().setting(digits, 0), *(scenario.setting(digits, seed) for seed in (0, 0, 1)))
    for part in ("validation", "test"):
        assert first.checksum(part) == plain.checksum(part)
    assert first.evaluated == plain.evaluated
    assert first.checksum("train") == same.checksum("train")
    assert len({each.checksum("train") for each in (plain, first, other)}) == 3


def test_more_originals_than_samples_stay_are_refused(digits):
    with pytest.raises(ValueError, match=r"originals=600, but .* keeps 540 of 1080"):
        Duplicates(0.5, originals=600).setting(digits, seed=0)
