"""Distillation: a new network learns from data and from what trained ones say of them.

    L(θ) = (1 - α) CE(f(x), y) + α T² KL(softmax f̄(x) / T ‖ softmax f(x) / T),   f̄: mean of the teachers' logits

Hinton, Vinyals, Dean 2015, arXiv 1503.02531. One teacher of the same size makes this self-distillation, several
put an ensemble into one network (Kim et al., "Pre-training under infinite compute", ICLR 2026, arXiv 2509.14786).
Teachers speak of the training data only; no text is sampled of them. Of a sequence, KL is the mean over the tokens that
are predicted.
"""

import copy

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive, Probability, Size
from fisherexp.data.batch import Batch
from fisherexp.methods.needs import OtherSeeds
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.training.mean_outputs import mean_logits
from fisherexp.methods.unlearning.teacher import frozen, kl_to_teacher


class Distillation(ERM):
    """The source is one teacher, sources of other seeds are others; `source.training` says how they are trained.

    others: how many of these. teacher_weight: α. temperature: T.
    """

    paper = "Hinton et al., 2015, arXiv 1503.02531"
    requires = ("class_labels or next_tokens",)
    start = "source"
    needs = (OtherSeeds(),)
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        others: Size = 2,
        teacher_weight: Probability = 0.5,
        temperature: Positive = 1.0,
    ) -> None:
        super().__init__(model, training)
        self.others, self.teacher_weight, self.temperature = others, teacher_weight, temperature
        self.fresh = copy.deepcopy(model.state_dict())  # the model still has new weights here
        self.teachers = nn.ModuleList()

    def source_loaded(self) -> None:
        for state in (self.model.state_dict(), *self.given["other_seeds"]):
            teacher = frozen(self.model)
            teacher.load_state_dict(state)
            self.teachers.append(teacher)
        self.model.load_state_dict(self.fresh)

    def on_train_batch_start(self, *batch: object) -> None:
        self.teachers.eval()

    def loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            taught = mean_logits([teacher(batch.inputs) for teacher in self.teachers])
        logits = self.model(batch.inputs)
        alike = self.temperature**2 * kl_to_teacher(logits, taught, self.temperature, batch.targets).mean()
        return (1 - self.teacher_weight) * self.objective.loss(logits, batch.targets) + self.teacher_weight * alike
