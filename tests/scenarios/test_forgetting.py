"""What is cut from the data, and how."""

import pytest
import torch

from fisherexp.data.digits import Digits
from fisherexp.scenarios.forgetting import ClassForgetting, RandomForgetting
from fisherexp.scenarios.plain import Plain


@pytest.fixture(scope="module")
def data():
    return Digits().load()


def test_class_parts_are_disjoint_and_whole(data):
    setting = ClassForgetting([1, 8]).setting(data, seed=0)
    parts = setting.parts
    for whole, retained, forgotten in (("train", "retain", "forget"), ("test", "test_retain", "test_forget")):
        assert len(parts[retained]) + len(parts[forgotten]) == len(parts[whole])
        assert set(parts[forgotten].targets.tolist()) == {1, 8}
        assert not {1, 8} & set(parts[retained].targets.tolist())
    assert torch.equal(parts["train"].inputs[setting.forgotten], parts["forget"].inputs)
    assert setting.evaluated == ("retain", "forget", "test_retain", "test_forget")


def test_random_parts_follow_the_seed(data):
    one, again, other = (RandomForgetting(0.05).setting(data, seed) for seed in (3, 3, 4))
    assert len(one.parts["forget"]) == 60
    assert torch.equal(one.forgotten, again.forgotten)
    assert not torch.equal(one.forgotten, other.forgotten)
    assert len(one.parts["test_retain"]) == len(data.test)
    assert one.evaluated == ("retain", "forget", "test_retain")
    assert one.checksum("forget") == again.checksum("forget") != other.checksum("forget")


@pytest.mark.parametrize(
    ("scenario", "what"),
    [
        (ClassForgetting(list(range(10))), "every training sample"),
        (RandomForgetting(1.0), "every training sample"),
        (RandomForgetting(0.0), "no training sample"),
        (ClassForgetting([]), "no training sample"),
    ],
)
def test_nothing_to_compare(data, scenario, what):
    with pytest.raises(ValueError, match=what):
        scenario.setting(data, seed=0)


def test_order_of_batches_follows_the_seed_and_overfitting_stops_shuffling(data):
    def first(seed: int, same: bool = False):
        setting = Plain().setting(data, seed)
        setting.same_batches = same
        return next(iter(setting.loader("train", shuffle=True))).targets

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    assert torch.equal(first(0, same=True), data.train.targets[: data.batch_size])
