"""Retained and forgotten batches in one fit: all of both, each tagged as what it is."""

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.data.batch import joined
from fisherexp.data.reports import Reports
from fisherexp.methods.importance import FisherPass, Importance
from fisherexp.methods.unlearning.batches import (
    forgotten_then_retained,
    retained_with_forgotten,
    shuffled,
    tagged_parts,
)
from fisherexp.methods.unlearning.dampening import one_then_forgotten
from fisherexp.metrics.evaluation import Evaluation
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.setting import Setting


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Digits of which the threes are to be forgotten."""
    folder = tmp_path_factory.mktemp("batches")
    return Workbench(composed(["data.batch_size=50", f"output_dir={folder}", "progress=off"])).setting


def sorted_images(images: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for image in images)


def test_parts_are_tagged_and_the_setting_is_as_it_was(setting):
    retained, forgotten = tagged_parts(setting)
    assert not retained.tags["forgotten"].any()
    assert forgotten.tags["forgotten"].all()
    assert setting.parts["retain"].tags == setting.parts["forget"].tags == {}


def test_the_forgotten_come_first_in_batches_of_their_own(setting):
    batches = list(forgotten_then_retained(setting, 20, 64))
    kinds = [batch.tags["forgotten"].unique().tolist() for batch in batches]
    assert sorted(kinds, reverse=True) == kinds
    assert all(len(kind) == 1 for kind in kinds)
    seen = joined(batches)
    assert torch.equal(seen.tags["forgotten"], seen.targets == 3)
    for part, forgotten in (("retain", False), ("forget", True)):
        here = seen.select(seen.tags["forgotten"] == forgotten)
        assert sorted_images(here.inputs) == sorted_images(setting.parts[part].inputs)


def test_every_batch_has_both_and_an_epoch_is_one_of_the_retained(setting):
    batches = list(retained_with_forgotten(setting))
    assert all(0 < batch.tags["forgotten"].sum() < batch.size for batch in batches)
    seen = joined(batches)
    assert torch.equal(seen.tags["forgotten"], seen.targets == 3)
    retained = seen.select(~seen.tags["forgotten"])
    assert sorted_images(retained.inputs) == sorted_images(setting.parts["retain"].inputs)
    forgotten = seen.select(seen.tags["forgotten"])
    count = len(setting.parts["forget"])
    assert forgotten.size > count  # again and again
    assert sorted_images(forgotten.inputs[:count]) == sorted_images(setting.parts["forget"].inputs)


@pytest.mark.parametrize("part", ["train", "retain"])
@pytest.mark.parametrize("batches_per_update", [1, 4])
def test_dampening_knows_which_of_its_two_passes_a_batch_is_from(setting, part, batches_per_update):
    """Of the training part, the forgotten samples are in both passes."""
    importance = Importance(batch_size=30)
    seen = joined(list(one_then_forgotten(setting, part, importance, batches_per_update)))
    first, second = (seen.select(seen.tags["forget_pass"] == which) for which in (False, True))
    assert torch.equal(first.inputs, setting.parts[part].inputs)
    assert torch.equal(second.inputs, setting.parts["forget"].inputs)
    assert bool((first.targets == 3).any()) == (part == "train")


@pytest.mark.parametrize(("count", "size", "expected"), [(11, 5, 10), (10, 5, 10), (12, 5, 12), (1, 5, 1)])
def test_a_last_batch_of_one_is_left_out(setting, count, size, expected):
    """Batch statistics of a single image are none."""
    samples = setting.parts["retain"].subset(range(count))
    assert sum(batch.size for batch in shuffled(setting, samples, size)) == expected


def test_sequences_go_through_the_model_as_few_at_a_time_as_their_tokens_ask(setting):
    importance = Importance(gradients="batch_mean", batch_size=4)
    reports = Reports(reports=1100, test_reports=2).load()
    of_reports = Setting(reports, {"train": reports.train}, (), Evaluation)
    found = (FisherPass(nn.Linear(1, 1), importance).batches(whole) for whole in (setting, of_reports))
    assert [next(iter(batches)).size for batches in found] == [512, 8]  # 2 · 4 reports of 49 tokens
