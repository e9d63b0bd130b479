"""M-FAC: precondition with the inverse of a damped Fisher of the last m gradients, never formed.

    θ ← θ - η F⁻¹ g_t,   F = λ I + (1/m) Σ_{s = t-m+1}^{t} g_s g_sᵀ

Frantar, Kurtic, Alistarh, NeurIPS 2021, arXiv 2107.03356. The authors update coefficients of a recursion; one Woodbury
solve with the m×m Gram matrix, of which a step changes one row, gives the same direction. As theirs: g_t is in the
window when it is preconditioned, m is the capacity also while rows are zero, weight decay is added to the gradient.
The rows are gradients of batch means: a batch is one sample of this Fisher.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive, Probability
from fisherexp.curvature import LowRankFisher
from fisherexp.methods.optimizers.passes import PassByPass
from fisherexp.methods.optimizers.windowed import WindowedOptimizer, newest_preconditioned


class MFACOptimizer(WindowedOptimizer):
    """window: m. damping: λ. momentum: β of v ← β v + (1 - β) F⁻¹ g, which the step follows. weight_decay: coupled.

    Memory: m·d numbers for d parameters. Raises ValueError for a gradient that holds NaN or infinity.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        window: int,
        damping: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        if len(self.param_groups) != 1:
            raise ValueError("M-FAC has one window for all parameters: give them as one group")
        first = self.param_groups[0]["params"][0]
        dim = sum(p.numel() for p in self.param_groups[0]["params"])
        self.damping = damping
        self.windows[0] = LowRankFisher.empty(window, dim, dtype=first.dtype, device=first.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step from the gradients at hand; a parameter without one counts as having zeros."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        (group,) = self.param_groups
        parameters = group["params"]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        decayed = [g + group["weight_decay"] * p for g, p in zip(gradients, parameters, strict=True)]
        direction = newest_preconditioned(self.windows[0], torch.cat([g.flatten() for g in decayed]), self.damping)
        for parameter, part in zip(parameters, direction.split([p.numel() for p in parameters]), strict=True):
            step = part.view_as(parameter)
            if group["momentum"]:
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                step = average.lerp_(step, 1 - group["momentum"])
            parameter.sub_(group["lr"] * step)
        return loss


class MFAC(PassByPass):
    """window: m. damping: λ. momentum: β. Further options: see PassByPass, and MFACOptimizer for all."""

    name = "m_fac"
    paper = "Frantar et al., NeurIPS 2021, arXiv 2107.03356"
    search = {"lr": "tag(log, interval(0.0001, 0.01))"}

    def __init__(
        self, model: nn.Module, window: Count, damping: Positive, momentum: Probability, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.window, self.damping, self.momentum = window, damping, momentum

    def optimizer(self, parameters: list[nn.Parameter]) -> MFACOptimizer:
        return MFACOptimizer(parameters, self.lr, self.window, self.damping, self.momentum, self.weight_decay)
