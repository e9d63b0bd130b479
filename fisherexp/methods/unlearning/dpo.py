"""Direct preference optimization for forgetting: a refusal is to win over the answer that is to be forgotten.

Paper: Rafailov et al., NeurIPS 2023, arXiv 2305.18290; for unlearning: Maini et al., COLM 2024, arXiv 2401.06121, and
Zhang et al., arXiv 2404.05868. With L_i = -log p_θ of the forgotten answer to prompt i and I_i of a refusal, sums over
their tokens, and L_i^0, I_i^0 of the source,

    forgotten = -(2/β) mean_i log σ(β [(L_i - L_i^0) - (I_i - I_i^0)]),   L(θ) = γ forgotten + α CE(B_r)

NPO is the same without the refusals. Form and defaults of open-unlearning (arXiv 2506.12618).
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.data.batch import Batch, joined
from fisherexp.methods.unlearning.idk import Idk
from fisherexp.methods.unlearning.npo import negative_preference
from fisherexp.methods.unlearning.sequence_losses import sequence_losses
from fisherexp.methods.unlearning.teacher import Taught


class DPO(Idk, Taught):
    """beta: β. Others as for Idk."""

    paper = "Rafailov et al., NeurIPS 2023, arXiv 2305.18290"
    weighs_samples = False

    def __init__(self, model: nn.Module, beta: Positive, **options: Any) -> None:
        super().__init__(model, **options)
        self.beta = beta
        self.hire()

    def loss(self, batch: Batch) -> Tensor:
        forget = batch.tags["forgotten"]
        parts = [batch.select(~forget), batch.select(forget), self.refused(batch.select(forget))]
        whole, sizes = joined(parts), [part.size for part in parts]
        pairs = whole.map(lambda tensor: tensor[sizes[0] :])
        logits = self.model(whole.inputs)
        with torch.no_grad():
            before = sequence_losses(self.teacher(pairs.inputs), pairs.targets)
        lost, won = (sequence_losses(logits[sizes[0] :], pairs.targets) - before).chunk(2)
        retained = self.objective.loss(logits[: sizes[0]], whole.targets[: sizes[0]])
        return self.forget_weight * negative_preference(lost, won, self.beta) + self.retain_weight * retained
