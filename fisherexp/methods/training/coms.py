"""Conservative objective models: a surrogate that is pushed down where climbing it would lead.

    min_β  L(β) + α mean_i (h_β(x̃_i) - h_β(x_i)),   x̃_i: x_i after some steps of ascent on h_β
    log α rises where the difference exceeds a limit, by Adam

Trabucco, Kumar, Geng, Levine, ICML 2021, arXiv 2107.06882, as released (design-baselines, coms_cleaned, without its
entropy term). x̃ carries no gradient.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.methods.training.design_ascent import DesignAscent
from fisherexp.methods.training.surrogate import ascend, surrogate_loss
from fisherexp.problems.offline_design import OfflineDesign


class ConservativeObjective(DesignAscent):
    """limit: of the overestimation, in units of the values' deviation. alpha: α at first; alpha_lr: of Adam.
    particle_steps, particle_lr: of the ascent from each design of a batch, the rate times √d.
    Further options: see DesignAscent.

    Metrics also: multiplier, α at the end.
    """

    name = "coms"
    paper = "Trabucco et al., ICML 2021, arXiv 2107.06882"
    headings = {
        "surrogate_mse": "MSE of the\nsurrogate",
        "output_gradient_norm": "‖∇ mean\noutput‖",
        "multiplier": "multiplier",
    }

    def __init__(
        self,
        limit: NonNegative = 0.5,
        alpha: Positive = 1.0,
        alpha_lr: NonNegative = 0.01,
        particle_steps: Count = 10,
        particle_lr: Positive = 0.25,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.limit, self.alpha, self.alpha_lr = limit, alpha, alpha_lr
        self.particle_steps, self.particle_lr = particle_steps, particle_lr

    def begin(self, problem: OfflineDesign, seed: int) -> None:
        super().begin(problem, seed)
        self.log_alpha = nn.Parameter(torch.tensor(self.alpha).log())
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], self.alpha_lr)

    def set_gradients(self, designs: Tensor, values: Tensor) -> dict[str, float]:
        rate = self.particle_lr * designs.shape[1] ** 0.5
        climbed = ascend(self.network, designs, self.particle_steps, rate)
        excess = (self.network.mean(climbed) - self.network.mean(designs)).mean()
        loss = surrogate_loss(self.network, designs, values, self.loss)
        (loss + self.log_alpha.exp().detach() * excess).backward()
        self.log_alpha.grad = self.log_alpha.exp().detach() * (self.limit - excess.detach())
        self.alpha_optimizer.step()
        return {"loss": loss.item(), "overestimation": excess.item(), "multiplier": self.log_alpha.exp().item()}

    def state_dict(self) -> dict[str, Any]:
        own = {"log_alpha": self.log_alpha.detach().clone(), "alpha_optimizer": self.alpha_optimizer.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.log_alpha.data.copy_(state["log_alpha"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])

    def metrics(self) -> dict[str, float]:
        return super().metrics() | {"multiplier": self.log_alpha.exp().item()}
