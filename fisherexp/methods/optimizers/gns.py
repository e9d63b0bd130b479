"""Gradient-Normalized Smoothness: Newton steps on an approximate Hessian, damped by the gradient's norm over a radius.

    d = -(H + λ I)⁻¹ g,   λ = |g| / (γ + ε);   accepted if f(θ) - f(θ + d) ≥ |g(θ + d)|² / 8λ:  γ ← max(2γ, γ_min),
    else γ ← γ/2 and again with the same H, at most 40 times

arXiv 2506.13710, ICLR 2026. γ estimates the radius in which the gradient's linearization by H errs by less than |g|,
and |d| ≤ γ. The loss is that of all samples at once, or acceptance would mean nothing, in eval mode. Unlike the
authors' code, a step that 40 trials refuse is not taken, a damped H that is not positive definite is a refused trial,
and a loss that changes by no more than rounding counts as accepted.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse.linalg import cg
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from fisherexp.config.types import Count, NonNegative, Positive, Size
from fisherexp.curvature import CurvatureOperator, ggn_operator, hessian_operator
from fisherexp.data.batch import Batch
from fisherexp.methods.optimizers.passes import PassByPass
from fisherexp.models.eval_mode import eval_mode
from fisherexp.scenarios.setting import Setting

EPS, SMALLEST_RADIUS, TRIALS = 1e-8, 1e-9, 40
CG_STEPS, CG_TOLERANCE = 100, 1e-6


def score_square(outputs: Tensor, labels: Tensor) -> Tensor:
    """½ (s·z)² (N,) for logits z (N, C), s = p - e_y held fixed. Its Gauss–Newton matrix is their Fisher."""
    score = outputs.detach().softmax(1) - F.one_hot(labels, outputs.shape[1])
    return (score * outputs).sum(1).square() / 2


def weighted_square(outputs: Tensor, labels: Tensor) -> Tensor:
    """½ Σ_c p_c z_c² (N,), p held fixed. Its Gauss–Newton matrix: Jᵀ diag(p) J, that of cross-entropy without -p pᵀ."""
    return (outputs.detach().softmax(1) * outputs.square()).sum(1) / 2


def curvature_of(kind: str, model: nn.Module, inputs: Any, labels: Tensor) -> CurvatureOperator:
    """The named matrix of mean cross-entropy at the model's weights, on one batch with class indices (N,).

    exact: the Hessian. ggn: Gauss–Newton, which is the true Fisher. sampled_fisher: that of labels drawn from the
    model (torch's generator). empirical_fisher: of the labels given. weighted_gn: see `weighted_square`.
    """
    if kind == "sampled_fisher":
        with torch.no_grad(), eval_mode(model):
            labels = torch.multinomial(model(inputs).softmax(1), 1).squeeze(1)
    make = hessian_operator if kind == "exact" else ggn_operator
    losses = {"exact": "cross_entropy", "ggn": "cross_entropy", "weighted_gn": weighted_square}
    return make(model, losses.get(kind, score_square), [(inputs, labels)])


def solver(operator: CurvatureOperator, dense: int) -> Callable[[Tensor, float], Tensor | None]:
    """(g, λ) -> (H + λ I)⁻¹ g for flat g (d,), or None where H + λ I is found not to be positive definite.

    By a Cholesky factor of H, formed once, up to `dense` parameters, else by SciPy's conjugate gradients.
    """
    if operator.dim <= dense:
        matrix = operator.dense().double()

        def solve(gradient: Tensor, damping: float) -> Tensor | None:
            damped = matrix + damping * torch.eye(len(matrix)).to(matrix)
            factor, info = torch.linalg.cholesky_ex(damped)
            if info.item():
                return None
            return torch.cholesky_solve(gradient.to(matrix)[:, None], factor)[:, 0].to(gradient)

        return solve

    def iterate(gradient: Tensor, damping: float) -> Tensor | None:
        right = gradient.double().cpu().numpy()
        found, _ = cg(operator.linear_operator(damping), right, rtol=CG_TOLERANCE, maxiter=CG_STEPS)
        return torch.from_numpy(found).to(gradient) if np.dot(found, right) > 0 else None

    return iterate


def write(vector: Tensor, parameters: list[nn.Parameter]) -> None:
    """Put the values of a flat vector into parameters, in place."""
    for parameter, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


class GNSOptimizer(torch.optim.Optimizer):
    """radius: γ at the start. tolerance: a gradient of no larger norm is the end: no step is taken.

    State, all in the one group of parameters: radius; solves and rejected, linear systems and steps refused for good.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], radius: float = 1.0, tolerance: float = 0.0) -> None:
        state = {"radius": radius, "tolerance": tolerance, "solves": 0, "rejected": 0}
        super().__init__(parameters, state)
        if len(self.param_groups) != 1:
            raise ValueError("GNS has one radius for all parameters: give them as one group")

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Tensor], *, solver_of: Callable[[], Callable[[Tensor, float], Tensor | None]]
    ) -> Tensor:
        """One step; returns the loss before it.

        closure: computes the loss of all samples and its gradients anew. solver_of: makes the `solver` at the weights
        at hand.
        """
        (group,) = self.param_groups
        loss, gradient = self._evaluated(closure, group)
        norm = gradient.norm().item()
        if norm <= group["tolerance"]:
            return loss
        solve, start = solver_of(), parameters_to_vector(group["params"])
        for _ in range(TRIALS):
            damping = norm / (group["radius"] + EPS)
            group["solves"] += 1
            newton = solve(gradient, damping)
            if newton is not None:
                write(start - newton, group["params"])
                after, gradient_after = self._evaluated(closure, group)
                fallen = (loss - after).double().item()
                rounding = torch.finfo(loss.dtype).eps * abs(loss.item())
                if fallen >= gradient_after.norm().item() ** 2 / (8 * damping) or abs(fallen) <= rounding:
                    group["radius"] = max(2 * group["radius"], SMALLEST_RADIUS)
                    return loss
                write(start, group["params"])
            group["radius"] /= 2
        group["rejected"] += 1
        return loss

    @staticmethod
    def _evaluated(closure: Callable[[], Tensor], group: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss and its flat gradient."""
        with torch.enable_grad():
            loss = closure()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group["params"]]
        return loss.detach(), parameters_to_vector(gradients)


class GNS(PassByPass):
    """curvature: see `curvature_of`. radius: γ at the start. tolerance: see GNSOptimizer. dense: see `solver`.

    epochs: steps, each from all of the training part. cpu_seconds: see PassByPass. Passes have besides: gradient_norm
    before the step, radius behind it, solves and rejected so far.
    """

    name = "gns"
    paper = "arXiv 2506.13710, ICLR 2026"
    requires = ("class_labels",)
    steps_itself = True
    weighs_samples = False
    search = {"radius": "tag(log, interval(0.01, 100))"}
    counts_with = {"tolerance": {"tolerance": 10.0}, "dense": {"dense": 1}}

    def __init__(
        self,
        model: nn.Module,
        curvature: Literal["exact", "ggn", "sampled_fisher", "empirical_fisher", "weighted_gn"],
        radius: Positive,
        tolerance: NonNegative,
        dense: Size,
        epochs: Count,
        cpu_seconds: Positive | None,
    ) -> None:
        super().__init__(model, epochs, 1.0, 0.0, cpu_seconds)
        self.curvature, self.radius, self.tolerance, self.dense = curvature, radius, tolerance, dense

    def optimizer(self, parameters: list[nn.Parameter]) -> GNSOptimizer:
        return GNSOptimizer(parameters, self.radius, self.tolerance)

    def batches(self, setting: Setting) -> Any:
        """One batch: all of the training part, as it is."""
        self.setting = setting
        return setting.loader(self.fits_on, batch_size=len(setting.parts[self.fits_on]))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer = self.optimizers()
        norms = []

        def closure() -> Tensor:
            with eval_mode(self.model):
                loss = self.loss(batch)
                optimizer.zero_grad()
                self.manual_backward(loss)
            norms.append(torch.stack([p.grad.norm() for p in self.trained() if p.grad is not None]).norm().item())
            return loss

        def solver_of() -> Callable[[Tensor, float], Tensor | None]:
            return solver(curvature_of(self.curvature, self.model, batch.inputs, batch.targets), self.dense)

        loss = optimizer.step(closure, solver_of=solver_of)
        self.mean_loss.add(loss, batch.size)
        (group,) = optimizer.param_groups
        self.reached = {"gradient_norm": norms[0], **{n: group[n] for n in ("radius", "solves", "rejected")}}

    def on_train_epoch_end(self) -> None:
        before = len(self.passes)
        super().on_train_epoch_end()
        for entry in self.passes[before:]:
            entry |= self.reached

    def trained(self) -> list[nn.Parameter]:
        """The trainable parameters."""
        return [p for p in self.model.parameters() if p.requires_grad]
