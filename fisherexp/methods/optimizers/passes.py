"""Training with one optimizer, watched pass by pass: the loop all methods of this wing share."""

import time
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from fisherexp.config.types import Count, NonNegative, Positive, Size
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.metrics.over_batches import evaluated
from fisherexp.models.eval_mode import eval_mode
from fisherexp.scenarios.setting import Setting


class PassByPass(ERM):
    """ERM with the optimizer of `optimizer`.

    epochs: passes over the data, at most. lr: peak learning rate. weight_decay: as the optimizer understands it.
    schedule, warmup_epochs: of the learning rate, as a Recipe has them.
    cpu_seconds: stop at the first step behind that much processor time of this process; None: only `epochs` count.

    The outcome has, for each pass, its mean training loss, what the objective shows of the test part behind it (of
    classes and tokens the accuracy in %, of numbers their errors) and the processor time of all passes so far.
    Evaluating a pass costs no part of that time and is not among the counted forward passes. Loss and time of the last
    pass are metrics as well, so that tables can show them.
    """

    def __init__(
        self,
        model: nn.Module,
        epochs: Count,
        lr: Positive,
        weight_decay: NonNegative,
        cpu_seconds: Positive | None,
        schedule: Literal["constant", "cosine"] = "constant",
        warmup_epochs: Size = 0,
    ) -> None:
        schedules = {"schedule": schedule, "warmup_epochs": warmup_epochs}
        super().__init__(model, Recipe(epochs=epochs, lr=lr, weight_decay=weight_decay, **schedules))
        self.lr, self.weight_decay, self.cpu_seconds = lr, weight_decay, cpu_seconds
        self.passes: list[dict[str, float]] = []
        self.setting: Setting | None = None
        self._spent, self._since = 0.0, 0.0

    def optimizer(self, parameters: list[nn.Parameter]) -> Optimizer:
        """The optimizer of the trainable parameters."""
        raise NotImplementedError

    def configure_optimizers(self) -> Optimizer | dict[str, Any]:
        optimizer, recipe = (
            self.optimizer([p for p in self.model.parameters() if p.requires_grad]),
            self.training_recipe,
        )
        if recipe.schedule == "constant" and not recipe.warmup_epochs:
            return optimizer
        return recipe.scheduled(optimizer, self.steps_per_epoch)

    def batches(self, setting: Setting) -> Any:
        self.setting = setting
        return super().batches(setting)

    def on_train_epoch_start(self) -> None:
        self._since = time.process_time()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        if self.cpu_seconds is None or self.spent < self.cpu_seconds:
            return None
        self.trainer.should_stop = True
        return -1  # Lightning's way to end a pass

    def on_train_epoch_end(self) -> None:
        self._spent, self._since = self.spent, time.process_time()
        trained, loss = self.mean_loss.count > 0, self.mean_loss.take()
        self.log("train/loss", loss, sync_dist=True)
        if trained:  # the budget may have ended with the pass before
            test = self._test()
            self.passes.append({"train_loss": loss, **test, "cpu_seconds": self._spent})
        self._since = time.process_time()
        last = {name: self.passes[-1][name] for name in ("train_loss", "cpu_seconds")}
        self.outcome = {"passes": self.passes, "metrics": last}

    def _test(self) -> dict[str, float]:
        """Those metrics of the test set that are shown in tables."""
        metric = self.objective.metrics(("test",)).to(self.device)
        with torch.no_grad(), eval_mode(self.model):
            found = evaluated(self.model.forward, [self.setting.loader("test")], metric)
        return {name: value for name, value in found.items() if name in metric.headings}

    @property
    def spent(self) -> float:
        """Processor seconds of all training so far, of all threads of this process."""
        return self._spent + time.process_time() - self._since

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["passes"] = {"done": list(self.passes), "spent": self.spent}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint["passes"]
        self.passes, self._spent, self._since = saved["done"], saved["spent"], time.process_time()
