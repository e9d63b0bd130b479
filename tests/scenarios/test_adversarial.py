"""The scenario of attacks: which training samples it keeps, and what it refuses."""

import pytest
import torch

from fisherexp.data.digits import Digits
from fisherexp.scenarios import adversarial
from fisherexp.scenarios.adversarial import Adversarial


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def test_the_first_half_of_the_classes_is_thinned_out_in_training_alone(digits):
    setting = Adversarial(minority=0.2).setting(digits, seed=0)
    before, after = (torch.bincount(part.targets) for part in (digits.train, setting.parts["train"]))
    assert after.tolist() == [*(round(0.2 * n) for n in before[:5].tolist()), *before[5:].tolist()]
    assert setting.parts["test"] is digits.test
    assert setting.altered
    whole = Adversarial().setting(digits, seed=0)
    assert whole.parts["train"] is digits.train
    assert not whole.altered


def test_a_class_of_which_nothing_is_left_is_refused(digits):
    with pytest.raises(ValueError, match=r"scenario\.minority=0\.0 leaves none of \d+ samples of class 0"):
        Adversarial(minority=0.0).setting(digits, seed=0)


def test_auto_attack_needs_four_classes(monkeypatch):
    monkeypatch.setattr(adversarial, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match=r"auto_attack needs four classes, these data have 2"):
        Adversarial(auto_attack=True).setting(Digits(classes=[0, 1]).load(), seed=0)


def test_auto_attack_without_its_package_is_refused_before_data_are_read(monkeypatch):
    monkeypatch.setattr(adversarial, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fisherexp\[attacks\]'"):
        Adversarial(auto_attack=True)
