"""Tasks of one data set: what each change does to an image, and that no part meets another."""

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.data.corruptions import corrupt
from fisherexp.data.digits import Digits
from fisherexp.data.task_transforms import transform
from fisherexp.data.tensors import TensorSet
from fisherexp.metrics.tasks import TaskMetrics
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.tasks import Tasks, TaskSequence

TASKS = ["plain", "rotated_90", "inverted", "mirrored", "permuted_1"]


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def test_each_change_of_one_image():
    image = TensorSet(torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8), torch.tensor([7]))
    expected = {
        "plain": [[1, 2], [3, 4]],
        "inverted": [[254, 253], [252, 251]],
        "mirrored": [[2, 1], [4, 3]],
        "rotated_90": [[2, 4], [1, 3]],  # anticlockwise
        "rotated_180": [[4, 3], [2, 1]],
    }
    for task, pixels in expected.items():
        found = transform(task)(image)
        assert found.inputs[0, 0].tolist() == pixels, task
        assert found.targets.tolist() == [7]


def test_right_angles_agree_with_resampling(digits):
    """A turn by a hair less than a right angle, which is interpolated, is nearly the exact one."""
    exact, near = (transform(f"rotated_{angle}")(digits.test).inputs.float() for angle in ("90", "89.99"))
    assert (exact - near).abs().max() <= 1


def test_permutations_are_one_to_one_fixed_and_different(digits):
    one, again, two = (transform(name)(digits.test).inputs for name in ("permuted_1", "permuted_1", "permuted_2"))
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    assert torch.equal(one.flatten(1).sort(1).values, digits.test.inputs.flatten(1).sort(1).values)


def test_corrupted_tasks_draw_other_noise_for_each_part(digits):
    train, test = (transform("gaussian_noise", part=part)(digits.test).inputs for part in ("train", "test"))
    assert not torch.equal(train, test)
    dimmed = transform("contrast", severity=3)(digits.test).inputs  # without draws
    assert torch.equal(dimmed, corrupt(digits.test.inputs, "contrast", 3))


@pytest.mark.parametrize("scenario", [Tasks(TASKS, shared=20), TaskSequence(TASKS)])
def test_every_task_has_the_same_images_and_its_parts_are_disjoint(scenario, digits):
    whole = scenario.setting(digits, seed=3)
    assert list(whole.tasks) == TASKS
    assert whole.evaluated[: len(TASKS)] == tuple(f"{task}/test" for task in TASKS)
    plain = whole.tasks["plain"].parts
    assert len(plain["train"]) + len(plain["validation"]) == len(digits.train)
    everything = torch.cat([plain["train"].inputs, plain["validation"].inputs]).flatten(1).sort(0).values
    assert torch.equal(everything, digits.train.inputs.flatten(1).sort(0).values)
    for task, one in whole.tasks.items():
        for part, images in one.parts.items():
            assert torch.equal(images.inputs, transform(task)(plain[part]).inputs)
            assert torch.equal(whole.parts[f"{task}/{part}"].inputs, images.inputs)
    pooled = torch.cat([one.parts["validation"].inputs for one in whole.tasks.values()])
    assert torch.equal(whole.parts["validation"].inputs, pooled)


def test_shared_start_is_of_training_images_of_all_tasks(digits):
    whole = Tasks(TASKS, shared=20).setting(digits, seed=0)
    blocks = whole.parts["train"].inputs.split(20)
    for task, block in zip(TASKS, blocks, strict=True):
        assert torch.equal(block, transform(task)(TensorSet(blocks[0], torch.zeros(20))).inputs)
        known = {image.numpy().tobytes() for image in whole.parts[f"{task}/train"].inputs}
        assert all(image.numpy().tobytes() in known for image in block)


def test_sequence_begins_with_the_first_task_and_asks_for_the_others(digits):
    whole = TaskSequence(TASKS).setting(digits, seed=0)
    assert torch.equal(whole.parts["train"].inputs, whole.parts["plain/train"].inputs)
    assert [id(one) for one in whole.requests] == [id(whole.tasks[task]) for task in TASKS[1:]]


def test_few_samples_of_later_tasks_come_about_equally_often(digits):
    whole = TaskSequence(["plain", "inverted", "mirrored"], few=100).setting(digits, seed=0)
    first, *others = (one.parts["train"] for one in whole.tasks.values())
    assert len(first.inputs.unique(dim=0)) > 900
    for one in others:
        assert len(one) == len(first)
        images, counts = one.inputs.unique(dim=0, return_counts=True)
        assert len(images) == 100
        assert set(counts.tolist()) == {9, 10}
    assert torch.equal(255 - others[0].inputs, others[1].inputs.flip(-1))  # the same ones in each
    assert len(whole.parts["mirrored/test"]) == len(digits.test)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tasks(["plain", "upside_down"]), "'upside_down' is no task"),
        (lambda: Tasks(["plain", "plain"]), "each only once"),
        (lambda: Tasks(["plain"], shared=9999), "scenario.shared=9999"),
        (lambda: Tasks(["plain"], validation=1.0), "scenario.validation=1.0"),
        (lambda: TaskSequence(["plain"]), "at least two"),
        (lambda: TaskSequence(["plain", "inverted"], few=9999), "scenario.few=9999"),
        (lambda: TaskSequence(["plain", "summary"]), "'summary' is no task of scikit-learn digits"),
    ],
)
def test_bad_choices_are_one_line(make, message, digits):
    with pytest.raises(ValueError, match=message) as caught:
        make().setting(digits, seed=0)
    assert "\n" not in str(caught.value)


def test_mean_over_tasks_counts_each_alike():
    metric = TaskMetrics(("a", "b_c"))
    metric.update(0, torch.eye(4) * 9, torch.arange(4))
    metric.update(1, torch.zeros(2, 4), torch.tensor([0, 1]))
    found = metric.compute()
    assert (found["a_accuracy"], found["b_c_accuracy"], found["mean_accuracy"]) == (100.0, 50.0, 75.0)
    assert found["mean_nll"] == pytest.approx((found["a_nll"] + torch.tensor(4.0).log().item()) / 2)
    assert next(iter(metric.headings)) == "mean_accuracy"


def test_both_scenarios_train_their_source_and_evaluate_every_task(tmp_path):
    small = ["model=mlp", "model.hidden=[16]", "method=erm", "training.epochs=2", "progress=off"]
    for scenario, size in (("tasks", 4 * 150), ("task_sequence", None)):
        bench = Workbench(composed([*small, f"scenario={scenario}", f"output_dir={tmp_path}"]))
        if size:
            assert len(bench.setting.parts["train"]) == size
        metrics = bench.evaluated("source")
        assert {f"{task}_accuracy" for task in bench.setting.tasks} < set(metrics)
