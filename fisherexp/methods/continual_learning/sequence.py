"""Training on tasks one after the other: what the methods of continual learning share.

One fit goes through all tasks, `training.epochs` epochs each, with a new optimizer and schedule for each. Before a
task the model is evaluated on all of them, which gives the matrix a_{t,i}: accuracy on task i after task t. What a
method wants to know of former tasks it takes down at their end; of their data nothing is kept.
"""

import dataclasses
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from fisherexp.data.composite import ByEpoch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.metrics.over_batches import evaluated
from fisherexp.metrics.tasks import TaskMetrics
from fisherexp.models.eval_mode import eval_mode
from fisherexp.scenarios.setting import Setting


class TaskTraining(ERM):
    """As it stands: train on each task in turn and remember nothing.

    memory: what is known of former tasks, in plain containers of tensors and numbers: saved with the training state.
        memory["task"] is the number of the task at hand.
    tasks: the settings of the tasks by name, on this method's device.
    outcome: {"accuracy": a_{t,i} in %, rows t, columns i; "nll": the same in nats; "average_accuracy": means over the
        tasks up to t}.
    """

    scenarios = ("task_sequence",)
    fits_on = "every_task"
    looks_at = ("test",)

    def __init__(self, model: nn.Module, training: Recipe) -> None:
        super().__init__(model, training)
        self.memory: dict[str, Any] = {"task": 0}
        self.accuracy: list[list[float]] = []
        self.nll: list[list[float]] = []
        self.tasks: dict[str, Setting] = {}

    # --- for subclasses --------------------------------------------------------------------------------

    def finish_task(self, task: Setting) -> None:
        """After the last step on a task that others follow."""

    def begin_task(self) -> None:
        """Before the first step on a task that is not the first one."""

    @property
    def epoch_of_task(self) -> int:
        return self.current_epoch % self.training_recipe.epochs

    # --- the loop --------------------------------------------------------------------------------------

    def batches(self, setting: Setting) -> ByEpoch:
        place = {name: getattr(setting, name) for name in ("device", "rank", "world_size", "same_batches")}
        self.tasks = {name: dataclasses.replace(task, **place) for name, task in setting.tasks.items()}
        single = len(setting.tasks[next(iter(setting.tasks))].parts["train"]) % setting.data.batch_size == 1
        options = {"shuffle": True, "augment": True, "drop_last": single}
        loaders = [task.loader("train", **options) for task in self.tasks.values()]
        self.epochs = len(self.tasks) * self.training_recipe.epochs
        return ByEpoch(*loaders, epochs=self.training_recipe.epochs)

    def setup(self, stage: str) -> None:
        # How many tasks there are is known only now.
        if stage == "fit" and not self.trainer.fast_dev_run:
            self.trainer.fit_loop.max_epochs = self.epochs

    def on_train_start(self) -> None:
        self.memory = move_data_to_device(self.memory, self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Here and not at the end of an epoch, after which a saved state may be all that is left of this method.
        if self.current_epoch // self.training_recipe.epochs > self.memory["task"]:
            self.finish_task(list(self.tasks.values())[self.memory["task"]])
            self._evaluate_all()
            self.memory["task"] += 1
            self.begin_task()
            self.trainer.strategy.setup_optimizers(self.trainer)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if not all(p.isfinite().all() for p in self.model.parameters()):
            remedy = "lower training.lr or method.lambda_ (SGD bears λ Ω up to about 2 / lr, Adam more)"
            raise ValueError(f"training diverged in task '{list(self.tasks)[self.memory['task']]}': {remedy}")

    def on_train_end(self) -> None:
        self._evaluate_all()
        seen = [row[: number + 1] for number, row in enumerate(self.accuracy)]
        self.outcome["accuracy"], self.outcome["nll"] = self.accuracy, self.nll
        self.outcome["average_accuracy"] = [sum(row) / len(row) for row in seen]

    def _evaluate_all(self) -> None:
        parts = (task.loader("test", rank=0, world_size=1) for task in self.tasks.values())
        with torch.no_grad(), eval_mode(self.model):
            found = evaluated(self.model.forward, parts, TaskMetrics(tuple(self.tasks)).to(self.device))
        self.accuracy.append([found[f"{name}_accuracy"] for name in self.tasks])
        self.nll.append([found[f"{name}_nll"] for name in self.tasks])

    def evaluate(self, setting: Setting) -> None:
        super().evaluate(setting)
        self.evaluation.history, self.evaluation.losses = (self.outcome[name][:-1] for name in ("accuracy", "nll"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["memory"] = apply_to_collection(self.memory, Tensor, torch.clone)
        checkpoint["accuracy"], checkpoint["nll"] = self.accuracy, self.nll

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.memory, self.accuracy, self.nll = (checkpoint[name] for name in ("memory", "accuracy", "nll"))
