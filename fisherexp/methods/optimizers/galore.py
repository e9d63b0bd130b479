"""GaLore: Adam on the projection of each gradient matrix onto its leading singular directions.

    R = Pᵀ G or G P,   W ← W - η α P Adam(R) or …Pᵀ,   P: r leading singular vectors of G, anew every T steps

Zhao et al., ICML 2024, arXiv 2403.03507. As in the authors' code the shorter side is projected, the first projection
is of the first gradient, and Adam's moments stay when the subspace changes. There the user names the modules to be
projected; here every matrix is, and all else takes plain AdamW steps. Weight decay comes before the step and ε is added
to the bias-corrected root, as in torch's AdamW.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.optimizers.passes import PassByPass
from fisherexp.methods.optimizers.windowed import WindowedOptimizer

BETAS = (0.9, 0.999)


def leading_directions(gradient: Tensor, rank: int) -> Tensor:
    """Orthonormal columns, at most `rank`: right singular vectors (m, r) of a gradient (n, m) with n ≥ m, else left
    ones (n, r)."""
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    return (right.mT if len(gradient) >= gradient.shape[1] else left)[:, :rank].contiguous()


def project(gradient: Tensor, basis: Tensor) -> Tensor:
    """Coordinates in the subspace: (n, r) of a gradient (n, m) with n ≥ m, else (r, m)."""
    return gradient @ basis if len(gradient) >= gradient.shape[1] else basis.mT @ gradient


def project_back(low: Tensor, basis: Tensor, shape: torch.Size) -> Tensor:
    """The matrix of that shape (n, m) that has these coordinates, and none outside the subspace."""
    return low @ basis.mT if shape[0] >= shape[1] else basis @ low


class GaLoreAdamW(WindowedOptimizer):
    """rank: r. every: T. scale: α, of projected steps. weight_decay: decoupled, times lr and not times scale.

    State: for an n×m matrix 2·r·max(n, m) moments and a basis of r·min(n, m) instead of Adam's 2·n·m.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        rank: int,
        every: int,
        scale: float,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"rank": rank, "every": every, "scale": scale, "eps": eps}
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, **options})

    def renewed(self, number: int) -> None:
        """Told that the subspace of parameter `number` is another one now."""

    def preconditioned(self, number: int, low: Tensor) -> Tensor:
        """What Adam gets instead of the projected gradient of parameter `number`: here that itself."""
        return low

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step from the gradients at hand."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        numbered = enumerate((group, p) for group in self.param_groups for p in group["params"])
        for number, (group, parameter) in numbered:
            if parameter.grad is not None:
                self._step(number, parameter, group)
        return loss

    def _step(self, number: int, parameter: nn.Parameter, group: dict) -> None:
        state, gradient, matrix = self.state[parameter], parameter.grad, parameter.ndim == 2
        taken = state.get("step", 0)
        if matrix:
            if taken % group["every"] == 0:
                state["basis"] = leading_directions(gradient, group["rank"])
                self.renewed(number)
            gradient = self.preconditioned(number, project(gradient, state["basis"]))
        state["step"] = taken + 1
        update = adam_direction(state, gradient, group["eps"])
        if matrix:
            update = group["scale"] * project_back(update, state["basis"], parameter.shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)


def adam_direction(state: dict, gradient: Tensor, eps: float) -> Tensor:
    """m̂ / (√v̂ + ε) behind the update of the moments in `state`, whose `step` counts this one."""
    first, second = (state.setdefault(name, torch.zeros_like(gradient)) for name in ("first", "second"))
    first.lerp_(gradient, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    corrections = [1 - beta ** state["step"] for beta in BETAS]
    return (first / corrections[0]) / ((second / corrections[1]).sqrt() + eps)


class GaLore(PassByPass):
    """rank: r. every: T. scale: α. eps: Adam's ε. Further options: see PassByPass, and GaLoreAdamW for all."""

    name = "galore"
    paper = "Zhao et al., ICML 2024, arXiv 2403.03507"
    search = {"lr": "tag(log, interval(0.001, 0.1))"}

    def __init__(
        self, model: nn.Module, rank: Count, every: Count, scale: Positive, eps: Positive, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.options = {"rank": rank, "every": every, "scale": scale, "eps": eps}

    def optimizer(self, parameters: list[nn.Parameter]) -> GaLoreAdamW:
        return GaLoreAdamW(parameters, self.lr, weight_decay=self.weight_decay, **self.options)
