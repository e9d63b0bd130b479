"""BA-LoRA: PiSSA with three penalties of the outputs, against what a source's bias leaves behind.

    L = L_task + λ₁ L_consistency + λ₂ L_diversity + λ₃ L_spectrum

of a batch's logits Z and those of the source, Z⁰: mean squared difference of rows of length 1, or KL(Z⁰ ‖ Z); squared
covariances between classes, or the negative entropy; minus the share of the k largest singular values of Z. A row of Z
is a sample's, of a text a token's that is to be predicted: padding has none.

Paper: Chang, Chang, Wu, arXiv 2408.04556; terms in output_penalties.py. The authors' code cannot be run with a teacher
(its spectrum term fails), so no published value of that term is known. "mse" and "covariance" are for classifiers, "kl"
and "entropy" what the paper has for generated text, which can do with either as classes can; covariances are as many as
the vocabulary squared. KL is a mean over tokens, in the authors' code a sum over the T of a sequence, padding and all:
T times as much. Where the source's classes mean something else, consistency keeps what is to be unlearned: λ₁ = 0.
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning import output_penalties as penalties
from fisherexp.methods.finetuning.pissa import PiSSA
from fisherexp.objectives.token_prediction import IGNORED, wide


class BALoRA(PiSSA):
    """consistency, diversity, spectrum: λ₁, λ₂, λ₃. distance, variety: of the first two terms. leading: k. Others as
    for PiSSA.

    outcome: also terms, the last step's, each without its weight.
    """

    name = "ba_lora"
    paper = "Chang et al., 2024, arXiv 2408.04556"
    requires = ("class_labels or next_tokens",)
    weighs_samples = False
    search = {
        "finetune.lr": "tag(log, interval(1e-3, 1e-1))",
        "consistency": "tag(log, interval(1e-5, 1e-1))",
        "diversity": "tag(log, interval(1e-5, 1e-1))",
        "spectrum": "tag(log, interval(1e-5, 1e-1))",
    }

    def __init__(
        self,
        model: nn.Module,
        consistency: NonNegative,
        diversity: NonNegative,
        spectrum: NonNegative,
        distance: Literal["mse", "kl"],
        variety: Literal["covariance", "entropy"],
        leading: Count,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.weights = {"consistency": consistency, "diversity": diversity, "spectrum": spectrum}
        self.distance = penalties.normalized_distance if distance == "mse" else penalties.divergence
        self.variety = penalties.correlated if variety == "covariance" else penalties.negative_entropy
        self.leading = leading
        self.last_terms: dict[str, Tensor] = {}

    def freeze(self) -> None:
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)  # a submodule: a saved state has it, too
        super().freeze()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.teacher.eval()

    def loss(self, batch: Batch) -> Tensor:
        logits = self.model(batch.inputs)
        with torch.no_grad():
            taught = self.teacher(batch.inputs)
        counted = batch.targets != IGNORED
        rows, taught = wide(logits)[counted], wide(taught)[counted]
        terms = {
            "consistency": self.distance(rows, taught),
            "diversity": self.variety(rows),
            "spectrum": penalties.spread(rows, self.leading),
        }
        self.last_terms = {term: value.detach() for term, value in terms.items()}
        return sum((self.weights[t] * value for t, value in terms.items()), self.objective.loss(logits, batch.targets))

    def on_train_end(self) -> None:
        super().on_train_end()
        self.outcome["terms"] = {term: value.item() for term, value in self.last_terms.items()}
