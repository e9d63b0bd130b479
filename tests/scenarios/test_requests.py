"""Sub-classes, wrong labels, requests in sequence; and requests that cannot be met."""

import numpy as np
import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.data.digits import Digits
from fisherexp.data.errors import DataError
from fisherexp.experiment import run_experiment
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.forgetting import (
    ClassForgetting,
    MislabeledForgetting,
    SequentialForgetting,
    SubclassForgetting,
)
from fisherexp.seeds import derive

PARITY = [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


@pytest.fixture(scope="module")
def data():
    return Digits().load()


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_merged_classes_keep_their_fine_labels(validation):
    plain = Digits(validation=validation).load()
    merged = Digits(validation=validation, superclasses=PARITY).load()
    assert (merged.num_classes, merged.class_names) == (2, ["0+2+4+6+8", "1+3+5+7+9"])
    for split in ("train", "test"):
        assert torch.equal(merged.fine_labels[split], getattr(plain, split).targets)
        assert torch.equal(getattr(merged, split).targets, getattr(plain, split).targets % 2)
    if validation:
        assert torch.equal(merged.validation.targets, plain.validation.targets % 2)


@pytest.mark.parametrize("wrong", [[[0, 1], [2, 3]], [[*range(10)], [3]], [[*range(11)]]])
def test_superclasses_hold_every_class_once(wrong):
    with pytest.raises(DataError, match=r"data.superclasses must hold each class 0…9 once, got \[\["):
        Digits(superclasses=wrong).load()


def test_a_subclass_goes_and_its_siblings_stay(data):
    merged = Digits(superclasses=PARITY).load()
    parts = SubclassForgetting([3]).setting(merged, seed=0).parts
    as_class = ClassForgetting([3]).setting(data, seed=0).parts
    for name in parts:
        assert torch.equal(parts[name].inputs, as_class[name].inputs)
        assert torch.equal(parts[name].targets, as_class[name].targets % 2)
    assert (parts["forget"].targets == 1).all()
    assert (parts["retain"].targets == 1).any()


def test_wrong_labels_are_where_and_only_where_samples_are_to_be_forgotten(data):
    one, again, other = (MislabeledForgetting(0.1).setting(data, seed) for seed in (3, 3, 4))
    train, truth = one.parts["train"], data.train.targets
    assert torch.equal(train.targets != truth, one.forgotten)
    assert one.forgotten.sum() == 120
    assert torch.equal(one.parts["forget"].targets, train.targets[one.forgotten])
    assert torch.equal(one.parts["retain"].targets, truth[~one.forgotten])
    assert torch.equal(one.parts["test_retain"].targets, data.test.targets)
    # every wrong label is as likely as any other: 120 draws of nine
    steps = np.bincount((train.targets - truth)[one.forgotten] % 10, minlength=10)
    assert steps[0] == 0
    assert (steps[1:] > 0).all()
    assert one.checksum("train") == again.checksum("train") != other.checksum("train")


def test_requests_leave_what_earlier_ones_left(data):
    setting = SequentialForgetting([[3], [8, 1]]).setting(data, seed=5)
    first, second = setting.requests
    whole = ClassForgetting([3, 8, 1]).setting(data, seed=5)
    assert setting.checksum("retain") == whole.checksum("retain") == second.checksum("retain")
    assert first.checksum("train") == whole.checksum("train")
    assert set(first.parts["forget"].targets.tolist()) == {3}
    assert set(second.parts["forget"].targets.tolist()) == {8, 1}
    assert torch.equal(second.parts["train"].targets, first.parts["retain"].targets)
    assert (first.seed, second.seed) == (5, derive("request", 5, 1))


@pytest.mark.parametrize(
    ("superclasses", "scenario", "message"),
    [
        (None, SubclassForgetting([3]), "needs data with super-classes: data=cifar20"),
        (PARITY, SubclassForgetting([12]), "no training sample"),
        (PARITY, ClassForgetting([0, 3]), "nothing to forget: no training sample has class 3"),
        (None, ClassForgetting([3, 11]), "nothing to forget: no training sample has class 11"),
        (None, SequentialForgetting([[0], [1, 0]]), "asks more than once to forget class 0"),
        (None, SequentialForgetting([[0], []]), "no training sample"),
        (None, SequentialForgetting([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]), "every training sample"),
        (None, MislabeledForgetting(0.0), "no training sample"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line(superclasses, scenario, message):
    with pytest.raises(ValueError, match=message) as caught:
        scenario.setting(Digits(superclasses=superclasses).load(), seed=0)
    assert "\n" not in str(caught.value)


SMALL = ["model.width=4", "training.epochs=2", "progress=off", "data.batch_size=100"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Methods that start from the same source share it."""
    return tmp_path_factory.mktemp("requests")


@pytest.mark.parametrize("method", ["ssd", "salun", "unsir", "lfssd"])
def test_one_request_is_class_forgetting(outputs, method):
    """To the bit, with methods that keep masks, noise or sums during their fit."""
    overrides = [*SMALL, "data.train_size=300", f"method={method}", f"output_dir={outputs}"]
    records = [
        run_experiment(composed([*overrides, *scenario]), outputs / method / scenario[0], [])
        for scenario in (["scenario.classes=[3]"], ["scenario=sequential_forgetting", "scenario.requests=[[3]]"])
    ]
    one, other = (record["metrics"]["after"] for record in records)
    assert {n: v for n, v in one.items() if n != "seconds"} == {n: v for n, v in other.items() if n != "seconds"}
    assert records[1]["outcome"]["requests"] == [records[0]["outcome"]]


def test_second_request_goes_on_from_the_first_with_the_same_importance_of_all_data(tmp_path):
    overrides = [*SMALL, "scenario=sequential_forgetting", "scenario.requests=[[3],[8]]", f"output_dir={tmp_path}"]
    overrides += ["method.importance.gradients=per_sample", "method.alpha_relative=0.3"]
    record = run_experiment(composed(overrides), tmp_path / "run", [])
    assert len(list((tmp_path / "artefacts" / "fisher").glob("*.safetensors"))) == 1

    bench = Workbench(composed(overrides))
    weights, source = bench.reference("source").tensors, bench.reference("source")
    for request, outcome in zip(bench.setting.requests, record["outcome"]["requests"], strict=True):
        ssd = bench.method("method")
        ssd.given["fisher"], _ = bench.fisher(ssd.importance, source)
        ssd.model.load_state_dict(weights)
        bench.fit(ssd, tmp_path / "by hand", "SSD", setting=request)
        weights = ssd.model.state_dict()
        assert ssd.outcome == outcome
        assert outcome["selected"] > 0
