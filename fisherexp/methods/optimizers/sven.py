"""Sven: the smallest step that brings the residual of every sample of a batch to zero, to first order.

    R_i = ℓ_i^{κ/2},   M = ∂R/∂θ (B, P),   θ ← θ - η M⁺ R,   M⁺ of the largest singular values σ > rtol σ₁, at most k

arXiv 2604.01279. With M Mᵀ = U Σ² Uᵀ, M⁺ R = Mᵀ w for w = U Σ⁻² Uᵀ R: the Gram matrix of the samples' gradients, its
eigenvectors (float64) and one weighted sum of those gradients; M is not formed. With squared errors and κ = 1 rows and
residuals are those of the signed error, up to a common factor: a Gauss–Newton step. Scaled by a running mean of squared
mean gradients (RMSProp), as the authors do for cross-entropy, either the rows (M / D, and the step is not scaled back)
or the step. Their micro-batches, fractions of the parameters, momentum and variable k are not here.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive, Probability
from fisherexp.curvature import PerSampleGradients, SampleGradients
from fisherexp.data.batch import Batch
from fisherexp.methods.optimizers.passes import PassByPass

SMALLEST = 1e-10  # a singular value below counts as zero, as in the authors' code
EPS = 1e-8


def row_weights(gram: Tensor, residuals: Tensor, rank: int, rtol: float) -> Tensor:
    """w (B,) with M⁺ R = Mᵀ w, for G = M Mᵀ (B, B) and R (B,): of the `rank` largest singular values of M those above
    rtol times the largest."""
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values[-rank:], vectors[:, -rank:]
    singular = values.clamp_min(0).sqrt()
    kept = singular > max(SMALLEST, rtol * singular[-1].item())
    return vectors @ torch.where(kept, (vectors.mT @ residuals.to(gram)) / values, 0)


def residuals_of(losses: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """R = ℓ^{κ/2} and dR/dℓ, (B,) each in float64. A sample without loss is solved: zero of both."""
    losses = losses.double()
    residuals = losses.pow(power / 2)
    return residuals, torch.where(losses > 0, power / 2 * residuals / losses, 0)


class SvenOptimizer(torch.optim.Optimizer):
    """rank: k; None for half of the batch. power: κ. scaling: none, of the rows or of the step, with decay `alpha`.
    weight_decay: decoupled. One group of parameters, in the order of the gradients that `step` is given.

    Raises ValueError for more groups than one.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        rank: int | None = None,
        rtol: float = 1e-3,
        power: float = 2.0,
        scaling: Literal["none", "rows", "step"] = "none",
        alpha: float = 0.99,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"rank": rank, "rtol": rtol, "power": power, "scaling": scaling, "alpha": alpha}
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, **options})
        if len(self.param_groups) != 1:
            raise ValueError("Sven solves for all parameters at once: give them as one group")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, gradients: SampleGradients) -> None:
        """One step from the gradients of a batch's samples at hand; a closure is not needed."""
        (group,) = self.param_groups
        residuals, slopes = residuals_of(gradients.losses, group["power"])
        rank = group["rank"] or max(1, len(residuals) // 2)
        if group["scaling"] == "rows":
            step = self._of_scaled_rows(gradients, residuals, slopes, rank, group)
        else:
            gram = slopes[:, None] * gradients.gram() * slopes
            step = list(gradients.combined(slopes * row_weights(gram, residuals, rank, group["rtol"])).values())
            if group["scaling"] == "step":
                step = [part / self._scale(p, part, group) for p, part in zip(group["params"], step, strict=True)]
        for parameter, part in zip(group["params"], step, strict=True):
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(part, alpha=group["lr"])

    def _of_scaled_rows(
        self, gradients: SampleGradients, residuals: Tensor, slopes: Tensor, rank: int, group: dict[str, Any]
    ) -> list[Tensor]:
        """M⁺ R of rows divided by the root of the running mean of their squared mean."""
        rows = []
        for parameter, part in zip(group["params"], gradients.rows().values(), strict=True):
            part = part.flatten(1) * slopes.to(part)[:, None]
            rows.append(part / self._scale(parameter, part.mean(0).view_as(parameter), group).flatten())
        gram = sum(part.double() @ part.double().mT for part in rows)
        weights = row_weights(gram, residuals, rank, group["rtol"])
        return [(weights.to(r) @ r).view_as(p) for r, p in zip(rows, group["params"], strict=True)]

    def _scale(self, parameter: nn.Parameter, value: Tensor, group: dict[str, Any]) -> Tensor:
        """√v + ε behind v ← α v + (1 - α) value²."""
        average = self.state[parameter].setdefault("square_avg", torch.zeros_like(parameter))
        average.mul_(group["alpha"]).addcmul_(value, value, value=1 - group["alpha"])
        return average.sqrt() + EPS


class Sven(PassByPass):
    """rank: k; None for half of a batch. rtol, power (κ), scaling, alpha: see SvenOptimizer. Further options: see
    PassByPass. Layers that draw random numbers, such as dropout, do not while gradients are taken.
    """

    paper = "arXiv 2604.01279"
    steps_itself = True
    weighs_samples = False
    search = {"lr": "tag(log, interval(0.01, 1))", "rtol": "tag(log, interval(0.0001, 0.1))"}
    counts_with = {"alpha": {"scaling": "step"}}

    def __init__(
        self,
        model: nn.Module,
        rank: Count | None,
        rtol: Probability,
        power: Positive,
        scaling: Literal["none", "rows", "step"],
        alpha: Probability,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.options = {"rank": rank, "rtol": rtol, "power": power, "scaling": scaling, "alpha": alpha}
        self.gradients: PerSampleGradients | None = None

    def optimizer(self, parameters: list[nn.Parameter]) -> SvenOptimizer:
        return SvenOptimizer(parameters, self.lr, weight_decay=self.weight_decay, **self.options)

    def on_fit_start(self) -> None:
        self.gradients = PerSampleGradients(self.model, loss=self.objective.likelihood)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        gradients = self.gradients(batch.inputs, batch.targets)
        self.optimizers().step(gradients=gradients)
        if scheduler := self.lr_schedulers():
            scheduler.step()
        self.mean_loss.add(gradients.losses.mean(), batch.size)
