"""Amnesiac unlearning: who gets a wrong label, and which."""

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.methods.unlearning.amnesiac import Amnesiac, wrong_labels
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import generator


def test_wrong_labels_are_wrong_and_uniform():
    labels = torch.arange(4).repeat_interleave(6000)
    wrong = wrong_labels(labels, 4, generator("test"))
    assert (wrong != labels).all()
    assert set(wrong.tolist()) == set(range(4))
    counts = torch.stack([torch.bincount(wrong[labels == c], minlength=4) for c in range(4)])
    others = counts[~torch.eye(4, dtype=torch.bool)]
    # 2000 expected, standard deviation 36.5
    assert (others - 2000).abs().max() < 5 * 36.5


def test_with_two_classes_it_is_the_other_one():
    assert wrong_labels(torch.tensor([0, 1, 1]), 2, generator("test")).tolist() == [1, 0, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_only_forgotten_samples_are_relabeled_and_alike_in_every_epoch(tmp_path, seed):
    setting = Workbench(composed([f"seed={seed}", f"output_dir={tmp_path}", "progress=off"])).setting
    method = Amnesiac(nn.Linear(2, 2), epochs=1, lr=1e-4, weight_decay=0.0, batch_size=64)
    labels = method.batches(setting).samples.targets
    changed = labels != setting.parts["train"].targets
    assert torch.equal(changed, setting.forgotten)
    assert torch.equal(method.batches(setting).samples.targets, labels)
