"""Bad teaching: be like the source model on retained samples, like an untrained one on forgotten ones.

Paper: Chundawat, Tarun, Mandal, Kankanhalli, arXiv 2205.08096. With T_s the source model, T_u a model of new
random weights and p_θ the student, which begins as the source,

    L(θ) = (1/|B|) Σ_{i ∈ B} [ KL(T_s(x_i) || p_θ(x_i)) if i ∈ D_r, KL(T_u(x_i) || p_θ(x_i)) if i ∈ D_f ]

over mixed batches of D_f and a random share of D_r. No label is used. Of a sequence, KL is the mean over the tokens
that are predicted: not of a prompt, and not of padding, by which a loss would depend on the neighbours in a batch.

Where the official code differs (and so does that of SSD, arXiv 2308.07707, whose settings these are): its KL is a
mean over samples and classes, hence C times smaller: official=true. Under Adam that scale is all but lost.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.unlearning.batches import shuffled
from fisherexp.methods.unlearning.teacher import Taught, frozen, kl_to_teacher
from fisherexp.seeds import generator


def bad_teaching(
    student: Tensor,
    competent: Tensor,
    incompetent: Tensor,
    forget: Tensor,
    temperature: float = 1.0,
    official: bool = False,
    targets: Tensor | None = None,
) -> Tensor:
    """Mean KL of the student (B, C) to the teacher of each sample, told by the mask `forget` (B,). targets: see
    kl_to_teacher."""
    teacher = torch.where(forget.view(-1, *[1] * (student.dim() - 1)), incompetent, competent)
    loss = kl_to_teacher(student, teacher, temperature, targets).mean()
    return loss / student.shape[-1] if official else loss


class BadTeacher(Taught, ERM):
    """retain_share: of the retained part, drawn once from the run's seed. official: KL divided by the classes."""

    paper = "Chundawat et al., arXiv 2205.08096"
    requires = ("class_labels or next_tokens",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "train"
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        retain_share: Probability,
        temperature: Positive,
        official: bool,
        epochs: Count,
        lr: Positive,
        weight_decay: NonNegative,
        batch_size: Count,
    ) -> None:
        super().__init__(model, Recipe(epochs, "adam", lr, 0.0, weight_decay, schedule="constant"))
        self.retain_share, self.temperature, self.official = retain_share, temperature, official
        self.batch_size = batch_size
        self.untrained = frozen(model)  # the model still has new weights here
        self.hire()

    def batches(self, setting: Any) -> Any:
        train, forgotten = setting.parts["train"], setting.forgotten.cpu()
        retained = torch.nonzero(~forgotten).flatten()
        order = torch.randperm(len(retained), generator=generator("bad_teacher", setting.seed))
        kept = retained[order[: round(self.retain_share * len(retained))]]
        chosen = torch.cat([torch.nonzero(forgotten).flatten(), kept]).sort().values
        return shuffled(setting, train.tagged(forgotten=setting.forgotten).subset(chosen), self.batch_size)

    def on_train_batch_start(self, *batch: Any) -> None:
        super().on_train_batch_start(*batch)
        self.untrained.eval()

    def loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            competent, incompetent = self.teacher(batch.inputs), self.untrained(batch.inputs)
        forget, student = batch.tags["forgotten"], self.model(batch.inputs)
        teachers = competent, incompetent
        return bad_teaching(student, *teachers, forget, self.temperature, self.official, batch.targets)
