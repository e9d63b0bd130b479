"""How domains are cut: nothing of the target in training, parts disjoint, shifts as asked for."""

import pytest
import torch

from fisherexp.data.colored import ColoredDigits
from fisherexp.data.digits import Digits
from fisherexp.scenarios.domains import Domains


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def keys(images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.inputs}


def test_parts_share_no_image_and_pool_in_order(digits):
    cut = Domains().setting(digits, seed=0)
    assert cut.evaluated == ("train_0", "train_30", "held_out_0", "held_out_30", "target", "target_held_out")
    found = [keys(cut.parts[name]) for name in cut.evaluated]
    assert sum(map(len, found)) == len(set.union(*found))
    assert sum(len(cut.parts[name]) for name in cut.evaluated) == len(digits.train) + len(digits.test)
    both = torch.cat([cut.parts["train_0"].inputs, cut.parts["train_30"].inputs])
    assert torch.equal(cut.parts["train"].inputs, both)
    sizes = [len(cut.parts[name]) for name in ("train_0", "train_30")]
    assert cut.parts["domains"].tags["domain"].bincount().tolist() == sizes
    assert torch.equal(cut.parts["domains"].targets, cut.parts["train"].targets)


def test_target_and_left_out_are_not_trained_on(digits):
    data = ColoredDigits().load()
    cut = Domains(target="e20", leave_out="e90", holdout=0.0).setting(data, seed=1)
    assert cut.evaluated == ("train_e10", "target", "left_out", "gray")
    assert torch.equal(cut.parts["target"].inputs, data.domains(1)["e20"].inputs)
    assert torch.equal(cut.parts["left_out"].inputs, data.domains(1)["e90"].inputs)


@pytest.mark.parametrize("target", [None, "e10"])
def test_leaving_out_the_target_leaves_out_no_further_domain(target):
    data = ColoredDigits().load()
    cut, plain = (Domains(target, leave_out, holdout=0.0).setting(data, 0) for leave_out in (target or "e90", None))
    assert cut.evaluated == plain.evaluated
    for name in ("domains", "target"):
        assert torch.equal(cut.parts[name].inputs, plain.parts[name].inputs)


@pytest.mark.parametrize(
    ("options", "altered"),
    [
        ({"holdout": 0.0}, False),
        ({"holdout": 0.0, "target": "e90"}, False),
        ({}, True),  # the default is DomainBed's
        ({"holdout": 0.0, "target": "e20"}, True),
        ({"holdout": 0.0, "leave_out": "e10"}, True),
        ({"holdout": 0.0, "label_shift": 0.5}, True),
    ],
)
def test_figures_of_colored_digits_are_of_all_images_and_the_last_domain(options, altered):
    assert Domains(**options).setting(ColoredDigits().load(), 0).altered == altered


def test_labels_shift(digits):
    for shift in (0.5, 1.0):
        cut = Domains(label_shift=shift, holdout=0.0).setting(digits, seed=0)
        plain = Domains(holdout=0.0).setting(digits, seed=0)
        for number, name in enumerate(("train_0", "train_30")):
            before, after = (s.parts[name].targets.bincount(minlength=10) for s in (plain, cut))
            own = torch.arange(10) % 2 == number
            assert torch.equal(after[own], before[own])
            kept = after[~own].sum() / before[~own].sum()
            assert kept == 0 if shift == 1 else abs(kept - 0.5) < 0.1
        assert len(cut.parts["target"]) == len(plain.parts["target"])


def test_what_is_held_out_of_a_shifted_domain_is_shifted_too(digits):
    """Else the choice by held-out data would know classes that the domain never shows."""
    cut = Domains(label_shift=1.0, holdout=0.25).setting(digits, seed=0)
    for number, name in enumerate(("0", "30")):
        train, out = (cut.parts[f"{part}_{name}"].targets for part in ("train", "held_out"))
        assert {*(train % 2).tolist(), *(out % 2).tolist()} == {number}
        assert len(out) == round(0.25 * (len(train) + len(out)))
    assert len(cut.parts["target_held_out"].targets.unique()) == 10


def test_patch_agrees_with_parity_as_often_as_said(digits):
    cut = Domains(made_by="patch", agreement=[1.0, 0.7, 0.0], holdout=0.0).setting(digits, seed=0)
    for name, agreement in (("train_a100", 1.0), ("train_a70", 0.7), ("target", 0.0)):
        images = cut.parts[name]
        left = images.inputs[:, 0, 0, 0] == 255
        right = images.inputs[:, 0, 0, -1] == 255
        sure = left != right  # a digit may be bright in the other corner
        share = (right[sure] == (images.targets[sure] % 2 == 1)).double().mean().item()
        assert abs(share - agreement) < 0.07 * (0 < agreement < 1) + 1e-9


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"target": "e99"}, "scenario.target=e99 is no domain"),
        ({"target": "e10", "leave_out": "gray"}, "scenario.leave_out=gray is no domain"),
        ({"holdout": 1.0}, "leaves nothing of domain"),
    ],
)
def test_bad_choices_are_one_line(options, what):
    with pytest.raises(ValueError, match=what) as error:
        Domains(**options).setting(ColoredDigits().load(), seed=0)
    assert "\n" not in str(error.value)


def test_equal_domains_are_refused(digits):
    with pytest.raises(ValueError, match="must differ"):
        Domains(angles=[0.0, 0.0]).setting(digits, seed=0)
