"""The loop over tasks: what is seen when, what is recorded, and that a killed run goes on as if nothing had been."""

import copy

import pytest
import torch
from pytorch_lightning import Callback

from fisherexp.metrics.tasks import forgetting


class Watch(Callback):
    """Keeps (epoch, images) of every step, and the step count of the optimizer before it."""

    def __init__(self):
        self.seen, self.steps = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append((trainer.current_epoch, batch.inputs))
        state = next(iter(trainer.optimizers[0].state.values()))
        self.steps.append(int(state["step"]))


def test_tasks_come_in_turn_each_with_a_new_optimizer_and_all_its_images(make_bench, tmp_path):
    watch = Watch()
    bench = make_bench("sequential", callbacks=[watch])
    bench.fit(bench.method("method"), tmp_path, "fit", own=True)
    assert [epoch for epoch, _ in watch.seen] == [epoch for epoch in range(6) for _ in range(4)]
    assert watch.steps == [*range(1, 9)] * 3
    for number, task in enumerate(bench.setting.tasks.values()):
        everything = sorted(image.numpy().tobytes() for image in task.parts["train"].inputs)
        for epoch in (2 * number, 2 * number + 1):
            here = torch.cat([images for at, images in watch.seen if at == epoch])
            assert sorted(image.numpy().tobytes() for image in here) == everything
    first, second = (torch.cat([i for at, i in watch.seen if at == epoch]) for epoch in (0, 1))
    assert not torch.equal(first, second)  # another order


def test_the_matrix_is_that_of_the_model_after_each_task(make_bench, tmp_path):
    """Its last row is what the test loop finds, its first that of a run on the first task alone."""
    bench = make_bench("sequential")
    method = bench.method("method")
    start = copy.deepcopy(method.model.state_dict())
    bench.fit(method, tmp_path, "fit")
    found = bench.test(method, tmp_path, "test")
    matrix = method.outcome["accuracy"]
    names = list(bench.setting.tasks)
    assert [len(row) for row in matrix] == [3, 3, 3]
    assert matrix[-1] == pytest.approx([found[f"{name}_accuracy"] for name in names])
    assert method.outcome["average_accuracy"][1] == pytest.approx(sum(matrix[1][:2]) / 2)
    assert found["forgetting"] == pytest.approx(forgetting(matrix))

    alone = make_bench("sequential", "scenario.tasks=[plain,permuted_1]")
    shorter = alone.method("method")
    shorter.model.load_state_dict(start)
    alone.fit(shorter, tmp_path / "alone", "fit")
    assert [row[:2] for row in matrix[:2]] == shorter.outcome["accuracy"]


def test_divergence_is_named_with_its_remedy(make_bench, tmp_path):
    bench = make_bench("sequential", "training.optimizer=sgd", "training.lr=1e30")
    with pytest.raises(ValueError, match=r"diverged in task 'plain': lower training.lr or method.lambda_"):
        bench.fit(bench.method("method"), tmp_path, "fit")


def test_joint_training_takes_as_many_steps(make_bench, tmp_path):
    watch = Watch()
    bench = make_bench("joint", callbacks=[watch])
    method = bench.method("method")
    bench.fit(method, tmp_path, "fit", own=True)
    assert len(watch.seen) == 2 * 3 * 4
    assert "forgetting" not in bench.test(method, tmp_path, "test")


class Killed(Exception):
    pass


class KillBefore(Callback):
    """Ends the process before a batch: the last state is that of the end of the former batch or epoch."""

    def __init__(self, epoch: int, batch: int):
        self.at = (epoch, batch)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Killed


@pytest.fixture(scope="module")
def undisturbed() -> dict:
    """Name of a method -> the method after a fit that was left alone."""
    return {}


@pytest.mark.parametrize("at", [(2, 0), (2, 1), (4, 0), (5, 2)], ids=str)
def test_a_run_killed_in_any_task_goes_on_bit_for_bit(make_bench, undisturbed, task_method, at, tmp_path):
    def run(folder, callbacks=None):
        bench = make_bench(task_method, callbacks=callbacks)
        made = bench.method("method")
        bench.fit(made, tmp_path / folder, "fit", own=True)
        return made

    whole = undisturbed.get(task_method) or undisturbed.setdefault(task_method, run("whole"))
    with pytest.raises(Killed):
        run("killed", [KillBefore(*at)])
    again = run("killed")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    assert again.outcome == whole.outcome
