"""A frozen copy of the source model that a student of it may look at during the whole fit."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.methods.method import ModelMethod
from fisherexp.methods.unlearning.sequence_losses import lengths
from fisherexp.objectives.token_prediction import IGNORED, wide


def frozen(model: nn.Module) -> nn.Module:
    """A copy that does not learn."""
    return copy.deepcopy(model).requires_grad_(False)


def kl_to_teacher(student: Tensor, teacher: Tensor, temperature: float = 1.0, targets: Tensor | None = None) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) of each sample, of a sequence the mean over the tokens that
    count in targets (B, T), or over all: logits (B, C) or (B, T, V) -> (B,). 0 of a sequence in which none counts."""
    wanted, given = (F.log_softmax(wide(logits) / temperature, dim=-1) for logits in (teacher, student))
    each = (wanted.exp() * (wanted - given)).sum(-1)
    if each.dim() == 1 or targets is None:
        return each if each.dim() == 1 else each.mean(1)
    return (each * (targets != IGNORED)).sum(1) / lengths(targets).clamp_min(1)


class Taught(ModelMethod):
    """A method with `self.teacher`: the model that fit begins with, in eval mode. To be mixed into another."""

    def hire(self) -> None:
        """Call it in __init__. A submodule, so that a saved state has the teacher with it."""
        self.teacher = frozen(self.model)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.trainer.ckpt_path is None:  # else it was restored, and the model is no longer the source
            self.teacher.load_state_dict(self.model.state_dict())

    def on_train_batch_start(self, *batch: Any) -> None:
        self.teacher.eval()
