"""SCRUB: a student that contradicts its teacher on forgotten data and follows it on retained data.

Paper: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, arXiv 2302.09880. The teacher t is the source
model, the student p_θ begins there, and with d(x) = T² KL(t(x) || p_θ(x)), both softened by the temperature T,

    max epochs:  θ ← θ + η ∇ mean d(B_f)                            over D_f, in the first `max_epochs` epochs
    min epochs:  θ ← θ - η ∇ [γ mean CE(B_r) + α mean d(B_r)]       over D_r, in every epoch

The max epoch comes first. Later epochs pass over D_f without a step. With rewind=true (SCRUB+R) the result is not
the last state but, of those at the ends of epochs, the one whose error on D_f is closest to the error of the last
state on validation data of the same classes: what a model that never saw D_f would make of it. Left out: the moving
average of the weights. Of a sequence, d is the mean over the tokens that are predicted; it has no class to rewind by.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability, Size
from fisherexp.data.batch import Batch
from fisherexp.data.composite import InTurn
from fisherexp.methods.unlearning.batches import forgotten_then_retained
from fisherexp.methods.unlearning.finetune import Finetune
from fisherexp.methods.unlearning.teacher import Taught, kl_to_teacher
from fisherexp.metrics.over_batches import gathered
from fisherexp.models.eval_mode import eval_mode


def distance(student: Tensor, teacher: Tensor, temperature: float, targets: Tensor | None = None) -> Tensor:
    """T² KL(teacher || student) of a batch of logits (B, C), mean over the batch. targets: see kl_to_teacher."""
    return temperature**2 * kl_to_teacher(student, teacher, temperature, targets).mean()


def error(model: nn.Module, batches: Any) -> float:
    """Share of the samples that the model, in eval mode, gets wrong."""
    with torch.no_grad(), eval_mode(model):
        logits, targets = gathered(model, batches)
    return (logits.argmax(-1) != targets).double().mean().item()


class SCRUB(Taught, Finetune):
    """max_epochs: how many of the epochs begin with one of contradiction. gamma, alpha: weights of cross-entropy
    and distance on retained data. rewind: SCRUB+R, which needs data.validation."""

    paper = "Kurmanji et al., NeurIPS 2023, arXiv 2302.09880"
    requires = ("class_labels or next_tokens",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "train"
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        max_epochs: Size,
        gamma: NonNegative,
        alpha: NonNegative,
        temperature: Positive,
        epochs: Count,
        lr: Positive,
        momentum: Probability,
        weight_decay: NonNegative,
        forget_batch_size: Count,
        retain_batch_size: Count,
        rewind: bool,
    ) -> None:
        super().__init__(model, epochs, lr, momentum, weight_decay)
        self.max_epochs, self.gamma, self.alpha, self.temperature = max_epochs, gamma, alpha, temperature
        self.forget_batch_size, self.retain_batch_size = forget_batch_size, retain_batch_size
        self.rewind = rewind
        self.states: list[dict[str, Tensor]] = []  # at the ends of epochs, with the errors on D_f
        self.errors: list[float] = []
        self.hire()

    def batches(self, setting: Any) -> InTurn:
        """Raises ValueError where SCRUB+R finds no validation sample of the forgotten classes."""
        if self.rewind:
            if "class_labels" not in setting.data.provides:
                raise ValueError("method.rewind compares with validation data of the forgotten classes: set it false")
            forget, unseen = setting.parts["forget"], setting.data.validation
            alike = unseen and torch.nonzero(torch.isin(unseen.targets, forget.targets.unique())).flatten()
            if unseen is None or not len(alike):
                raise ValueError(
                    "method.rewind compares with validation data of the forgotten classes: data.validation=0.1"
                )
            self.forget_set = setting.loader_of(forget, shuffle=False)
            self.unseen = setting.loader_of(unseen.subset(alike), shuffle=False)
        return forgotten_then_retained(setting, self.forget_batch_size, self.retain_batch_size)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        if self.current_epoch >= self.max_epochs and batch.tags["forgotten"].all():
            return None
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self.rewind:
            self.states.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
            self.errors.append(error(self.model, self.forget_set))

    def on_train_end(self) -> None:
        if self.rewind:
            goal = error(self.model, self.unseen)
            chosen = min(range(len(self.errors)), key=lambda epoch: abs(self.errors[epoch] - goal))
            self.model.load_state_dict(self.states[chosen])
            self.outcome = {"forget_errors": self.errors, "validation_error": goal, "epoch": chosen + 1}

    def loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = self.teacher(batch.inputs)
        logits = self.model(batch.inputs)
        away = distance(logits, wanted, self.temperature, batch.targets)
        if batch.tags["forgotten"].all():  # InTurn never mixes the two
            return -away
        return self.gamma * self.objective.loss(logits, batch.targets) + self.alpha * away

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["states"], checkpoint["errors"] = self.states, self.errors

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.states, self.errors = checkpoint["states"], checkpoint["errors"]
