"""Fish: follow gradients that agree between domains, by small steps through the domains in turn.

Paper: Shi et al., ICLR 2022, arXiv 2104.09937, as in DomainBed (arXiv 2007.01434). From the weights θ,

    θ~ ← θ~ - η ∇L_e(θ~)  for each domain e in turn, by one optimizer throughout;      θ ← θ + ε (θ~ - θ)

To second order this ascends the inner products of the domains' gradients. A domain is seen alone in each inner step,
by BatchNorm too. Buffers are those that the inner steps leave.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.batches import by_domain
from fisherexp.methods.domain_generalization.domain import Domain, seen, whole
from fisherexp.methods.domain_generalization.penalty import L2_ALONE, Penalty
from fisherexp.methods.recipe import Recipe


@torch.no_grad()
def step_towards(parameters: Sequence[Tensor], start: Sequence[Tensor], rate: float) -> None:
    """Set parameters, in place, to start + rate · (parameters - start)."""
    for parameter, begun in zip(parameters, start, strict=True):
        parameter.copy_(begun + rate * (parameter - begun))


class Fish(DomainMethod):
    """meta_lr: ε. Of `penalty` only l2 has a say."""

    penalizes = False
    steps_itself = True
    without_effect = L2_ALONE
    paper = "Shi et al., ICLR 2022, arXiv 2104.09937"

    def __init__(self, model: nn.Module, meta_lr: Positive, training: Recipe, penalty: Penalty) -> None:
        super().__init__(model, training, penalty)
        self.meta_lr = meta_lr

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer = self.optimizers()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        start = [p.detach().clone() for p in parameters]
        inputs, targets = (by_domain(values, batch.tags["domain"]) for values in batch[:2])
        for x, y in zip(inputs, targets, strict=True):
            risk = whole(Domain(*seen(self.model, x), y)).loss()
            optimizer.zero_grad()
            self.manual_backward(self.penalty.joined(risk, None, self.model, self.global_step))
            optimizer.step()
            self.mean_loss.add(risk, len(y))
        step_towards(parameters, start, self.meta_lr)
        self.lr_schedulers().step()
