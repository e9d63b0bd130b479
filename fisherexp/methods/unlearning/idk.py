"""Learn to answer "I don't know" to what is to be forgotten, and go on answering the rest.

    L(θ) = γ CE(B_idk) + α CE(B_r),   means over all tokens of a batch

B_idk: prompts of forgotten samples, each with a refusal drawn anew at every step in the place of its answer. The
forgotten answers themselves have no say. A text without a prompt keeps its first token.

Maini, Feng, Schwarzschild, Lipton, Kolter, COLM 2024, arXiv 2401.06121 ("preference optimization" there, IdkNLL in
open-unlearning, arXiv 2506.12618).
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne
from fisherexp.data.batch import Batch, joined
from fisherexp.data.composite import SideBySide
from fisherexp.methods.unlearning.forget_retain import ForgetRetain
from fisherexp.methods.unlearning.refusals import answered, drawn_answers, encoded
from fisherexp.models.huggingface import HuggingFace


class Idk(ForgetRetain):
    """refusals: the answers, None for those of data with words of their own, or else of refusals.py. Others as for
    ForgetRetain.

    Raises DataError for a refusal in letters or words that the data do not have.
    """

    paper = "Maini et al., COLM 2024, arXiv 2401.06121"
    requires = ("next_tokens",)
    weighs_samples = False
    counts_with = {"refusals": {"/data": "reports", "/scenario": "random_forgetting", "refusals": ["clear ."]}}

    def __init__(self, model: nn.Module, refusals: AtLeastOne[str] | None, **options: Any) -> None:
        super().__init__(model, **options)
        self.refusals = refusals
        self.answers: list[list[int]] = []
        self.limit = 0

    def batches(self, setting: Any) -> SideBySide:
        data = setting.data
        self.answers = encoded(data, self.refusals or data.refusals)
        # A pretrained model takes more than the longest row of these data: a refusal is not cut to that.
        backbone = self.model.backbone
        context = backbone.context if isinstance(backbone, HuggingFace) else None
        self.limit = max(context or 0, data.input_shape[0])
        return super().batches(setting)

    def refused(self, batch: Batch) -> Batch:
        """The forgotten samples of a batch, with refusals."""
        return answered(batch, drawn_answers(self.answers, batch.size), self.limit)

    def forgotten(self, logits: Tensor, batch: Batch) -> Tensor:
        return self.objective.loss(logits, batch.targets)

    def loss(self, batch: Batch) -> Tensor:
        forget = batch.tags["forgotten"]
        return super().loss(joined([batch.select(~forget), self.refused(batch.select(forget))]))
