"""SimNPO: negative preference optimization without a reference model, by the loss of a token instead of a sequence.

Paper: Fan, Liu, Lin, Jia, Zhang, Mei, Liu, arXiv 2410.07163. With L_i the loss of sequence i, summed over its n_i
tokens,

    forgotten = -(2/β) mean_i log σ(β (L_i / n_i - δ)),   L(θ) = γ forgotten + α CE(B_r)

The weight of -∂L_i is (2/n_i) σ(-β (L_i / n_i - δ)): sequences that are unlikely already are pushed less, long ones no
more than short ones.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.forget_retain import ForgetRetain
from fisherexp.methods.unlearning.npo import negative_preference
from fisherexp.methods.unlearning.sequence_losses import lengths, sequence_losses


class SimNPO(ForgetRetain):
    """beta: β. delta: δ, in nats a token. Others as for ForgetRetain."""

    paper = "Fan et al., arXiv 2410.07163"

    def __init__(self, model: nn.Module, beta: Positive, delta: float, **options: Any) -> None:
        super().__init__(model, **options)
        self.beta, self.delta = beta, delta

    def forgotten(self, logits: Tensor, batch: Batch) -> Tensor:
        mean = sequence_losses(logits, batch.targets) / lengths(batch.targets).clamp_min(1)
        return negative_preference(mean, mean.new_tensor(self.delta), self.beta)
