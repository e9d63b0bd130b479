"""Robust matrix recovery by sub-gradients: a low-rank matrix from measurements with gross errors, without its rank.

    f(U) = (1/m) Σ |⟨A_i, U Uᵀ⟩ - y_i|,    D = (1/m) Σ sign(⟨A_i, U Uᵀ⟩ - y_i) A_i,    ∂f = (D + Dᵀ) U
    U ← U - η₀ ρ^t (D + Dᵀ) U,    U₀ = α B

B Bᵀ is the positive part of the symmetrized (1/m) Σ sign(y_i) A_i, of Frobenius norm one. U has as many columns r' as
one likes: from a tiny start α only the directions of the true matrix grow, so that the error is of the order of α
although r' ≫ r. Ma, Fattahi: Global Convergence of Sub-gradient Method for Robust Matrix Recovery, JMLR 2023, arXiv
2202.08788. No code of the authors is public; their theory also divides each step by the length of the sub-gradient.

Where the steps η₀ ρ^t end before U has grown from α to its size, nothing is found: Σ η₀ ρ^t = η₀ / (1 - ρ) must exceed
a multiple of log(1/α). Columns of B beyond the rank of the positive part are zero, and stay so.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive, Probability
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.corrupted_low_rank import CorruptedLowRank

Loss = Literal["absolute", "squared"]


def residual_matrix(factor: Tensor, operators: Tensor, values: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """f(U), and D (d, d) with ∂f = (D + Dᵀ) U. operators: A (m, d²). The sign of zero is 0.

    squared: f(U) = (1/2m) Σ (⟨A_i, U Uᵀ⟩ - y_i)² and D = (1/m) Σ (⟨A_i, U Uᵀ⟩ - y_i) A_i, the baseline.
    """
    residuals = operators @ (factor @ factor.T).flatten() - values
    weights = residuals.sign() if loss == "absolute" else residuals
    value = residuals.abs().mean() if loss == "absolute" else residuals.square().mean() / 2
    d = len(factor)
    return value, (weights @ operators).reshape(d, d) / len(values)


def spectral_start(operators: Tensor, values: Tensor, d: int, columns: int, loss: Loss) -> Tensor:
    """B (d, columns): the best factor, of that many columns, of the positive part of -(D + Dᵀ)/2 at U = 0."""
    _, at_zero = residual_matrix(values.new_zeros(d, 1), operators, values, loss)
    eigenvalues, vectors = torch.linalg.eigh(-(at_zero + at_zero.T) / 2)
    largest = eigenvalues.flip(0)[:columns].clamp(min=0)
    return vectors.flip(1)[:, :columns] * (largest / largest.norm()).sqrt()


class RobustMatrixRecovery(IterativeMethod):
    """A step is one sub-gradient step, `steps` in all.

    columns: r', of the factor; all `dimension` by default, which knows nothing of the rank.
    loss: absolute, or squared for gradient descent on the mean square, which outliers mislead.
    init_scale: α, not below what the type of the data resolves. step_size: η₀. decay: ρ.
    convergence.png and .pdf show error and loss over steps.
    """

    paper = "Ma, Fattahi, JMLR 2023, arXiv 2202.08788"
    problems = ("numerical",)
    requires = ("matrix_measurements",)
    headings = {"loss": "loss", "rank": "rank"}
    better = {"loss": "lower"}
    on_device = True
    # Which columns are left out shows once they would have grown.
    counts_with = {"columns": {"columns": 2}}

    problem: CorruptedLowRank

    def __init__(
        self,
        columns: Count | None = None,
        loss: Literal["absolute", "squared"] = "absolute",
        init_scale: Positive = 1e-5,
        step_size: Positive = 0.25,
        decay: Probability = 0.99,
        steps: Count = 1200,
    ) -> None:
        super().__init__()
        self.columns, self.loss, self.init_scale = columns, loss, init_scale
        self.step_size, self.decay, self.steps = step_size, decay, steps

    def begin(self, problem: CorruptedLowRank, seed: int) -> None:
        super().begin(problem, seed)
        d = problem.dimension
        if self.columns is not None and self.columns > d:
            raise ValueError(f"method.columns={self.columns}: at most data.dimension={d}")
        least = torch.finfo(problem.dtype).eps
        if self.init_scale < least:
            reason = f"the error is of this order, and {problem.dtype} resolves {least:.1e}"
            remedy = f"method.init_scale={10 * least:.0e}"
            remedy += ", or data.dtype=float64" * (problem.dtype != torch.float64)
            raise ValueError(f"method.init_scale={self.init_scale:g}: {reason}; {remedy}")
        self.measured = problem.instance["operators"], problem.instance["values"]
        self.factor = self.init_scale * spectral_start(*self.measured, d, self.columns or d, self.loss)
        self.outcome = {"gigabytes": problem.bytes_needed / 1e9}
        value, self.residual = residual_matrix(self.factor, *self.measured, self.loss)
        self.curve = [[float(value), problem.error(self.factor)]]

    @property
    def done(self) -> bool:
        return len(self.curve) > self.steps

    def step(self) -> dict[str, float]:
        size = self.step_size * self.decay ** (len(self.curve) - 1)
        self.factor = self.factor - size * (self.residual + self.residual.T) @ self.factor
        value, self.residual = residual_matrix(self.factor, *self.measured, self.loss)
        if not value.isfinite():
            raise ValueError(f"method.step_size={self.step_size}: the loss is not finite after {len(self.curve)} steps")
        self.curve.append([float(value), self.problem.error(self.factor)])
        return {"loss": self.curve[-1][0], "relative_error": self.curve[-1][1], "step_size": size}

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "residual": self.residual, "curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.residual = (state[name].to(self.factor) for name in ("factor", "residual"))
        self.curve = state["curve"]

    def solution(self) -> Tensor:
        return self.factor

    def tensors(self) -> dict[str, Tensor]:
        return {"factor": self.factor}

    def metrics(self) -> dict[str, float]:
        """rank: eigenvalues of U Uᵀ above a hundredth of the largest."""
        eigenvalues = torch.linalg.svdvals(self.factor).square()
        return {"loss": self.curve[-1][0], "rank": int((eigenvalues > eigenvalues[0] / 100).sum())}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.numerics.recovery_figure import draw

        draw(self.curve, self.init_scale, folder / "convergence")
