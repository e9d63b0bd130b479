"""Task-vector negation: learn what is to be forgotten even better, and go the opposite way.

    θ_f = θ_0 trained on, on D_f;   θ = θ_0 - λ (θ_f - θ_0)

θ_0: the source. Parameters only: the statistics of batch normalization stay those of the source.

Ilharco et al., ICLR 2023, arXiv 2212.04089; on language models as in MUSE: Shi et al., ICLR 2025, arXiv 2407.06460.
"""

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM


class NegatedTaskVector(ERM):
    """scale: λ; -1 would be the model trained on D_f, 0 the source. Others: of the training on D_f by AdamW.

    outcome: norm, ‖θ_f - θ_0‖ over all parameters.
    """

    paper = "Ilharco et al., ICLR 2023, arXiv 2212.04089"
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "forget"

    def __init__(
        self, model: nn.Module, scale: Positive, epochs: Count, lr: Positive, weight_decay: NonNegative
    ) -> None:
        super().__init__(model, Recipe(epochs, "adamw", lr, 0.0, weight_decay, schedule="constant"))
        self.scale = scale
        self.before: dict[str, Tensor] = {}

    def source_loaded(self) -> None:
        self.before = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    @torch.no_grad()
    def on_train_end(self) -> None:
        learnt = {name: p - self.before[name].to(p.device) for name, p in self.model.named_parameters()}
        self.model.load_state_dict(self.before)
        for name, parameter in self.model.named_parameters():
            parameter -= self.scale * learnt[name]
        self.outcome = {"norm": sum(d.double().square().sum().item() for d in learnt.values()) ** 0.5}
