"""Tasks made of classes: whose samples each has, that no part meets another, and what is refused."""

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.data.digits import Digits
from fisherexp.experiment import run_experiment
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.class_tasks import ClassTasks

GROUPS = [[0, 1], [5, 7, 9]]


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def indices(samples, whole):
    """Where the images of a set stand in the whole set; all images of digits differ."""
    at = {image.numpy().tobytes(): place for place, image in enumerate(whole.inputs)}
    return {at[image.numpy().tobytes()] for image in samples.inputs}


def test_every_task_has_its_classes_and_its_parts_are_disjoint(digits):
    setting = ClassTasks(GROUPS, names=["few", "odd"], samples=100, validation=0.2, shared=10).setting(digits, seed=0)
    assert setting.evaluated == ("few/test", "odd/test")
    for name, classes in zip(("few", "odd"), GROUPS, strict=True):
        alone = setting.tasks[name]
        assert [len(alone.parts[part]) for part in ("train", "validation")] == [80, 20]
        for part in ("train", "validation", "test"):
            assert set(alone.parts[part].targets.tolist()) == set(classes)
            assert torch.equal(setting.parts[f"{name}/{part}"].targets, alone.parts[part].targets)
        assert len(alone.parts["test"]) == torch.isin(digits.test.targets, torch.tensor(classes)).sum()
        train, aside = (indices(alone.parts[part], digits.train) for part in ("train", "validation"))
        assert not train & aside
        assert len(indices(setting.parts["train"], digits.train) & train) == 10
    assert len(setting.parts["every_task"]) == 160
    assert len(setting.parts["train"]) == 20
    other = ClassTasks(GROUPS, samples=100).setting(digits, seed=1)
    assert list(other.tasks) == ["0_1", "5_7_9"]
    assert other.checksum("validation") != setting.checksum("validation")


def test_without_groups_there_are_two_tasks_of_half_the_classes(digits):
    assert list(ClassTasks(samples=100).setting(digits, seed=0).tasks) == ["0_1_2_3_4", "5_6_7_8_9"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": [[0, 1], [1, 2]]}, "class 1 is in two tasks"),
        ({"names": ["one"]}, "1 names for 2 groups"),
        ({"samples": 1000}, "scenario.samples=1000, but task '0_1' has"),
        ({"samples": 10, "validation": 0.0}, "leaves 0 of 10 samples aside"),
        ({"samples": 50}, "scenario.shared=50, but a task has only 40"),
    ],
)
def test_bad_choices_are_one_line(options, words, digits):
    with pytest.raises(ValueError, match=words):
        ClassTasks(**{"groups": GROUPS} | options).setting(digits, seed=0)


def test_a_merged_model_knows_both_tasks_better_than_an_expert_of_one(tmp_path):
    small = [
        "scenario=class_tasks",
        "scenario.shared=20",
        "scenario.samples=200",
        "model=mlp",
        "model.hidden=[32]",
        "training.epochs=8",
    ]
    cfg = composed([*small, "method=regmean", "progress=off", "threads=1", f"output_dir={tmp_path}"])
    (tmp_path / "run").mkdir()
    after = run_experiment(cfg, tmp_path / "run", [])["metrics"]["after"]
    assert min(after["0_1_2_3_4_accuracy"], after["5_6_7_8_9_accuracy"]) > 50
    bench = Workbench(cfg)
    method = bench.method("method")
    (need, *_) = method.needs
    experts, _ = need.resolve(bench, method, bench.reference("source"))
    alone = bench.classifier("expert")
    alone.load_state_dict(experts["0_1_2_3_4"])
    test = bench.setting.parts["test"]
    right = (alone.eval()(test.inputs).argmax(1) == test.targets).double().mean().item()
    assert after["mean_accuracy"] > 100 * right
