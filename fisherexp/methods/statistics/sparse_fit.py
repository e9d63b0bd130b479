"""Sparse regression as a sum of a smooth part and a lasso, and three ways to go down it.

    min over β:  ℓ(β) + Σ p(β_j),    p(β) = λ|β| + r(β),  see nonconvex_penalties.py

    squared:   ℓ = ‖y - Xβ‖² / 2n                   logistic:  ℓ = mean [log(1 + exp(Xβ)) - y Xβ],  y in {0, 1}

Kai Yang: Contributions to Robust and Efficient Methods for Analysis of High Dimensional Data, McGill, 2025, and the
package nonconvexAG; the thesis was not at hand. A step is t = 0.99/L, L = max(that of ℓ, 1/(a-1) or 1/γ).

proximal:     β ← S(β - t∇), ∇ of ℓ and r, S the soft-threshold tλ.
accelerated:  composite nonconvex problems (Ghadimi, Lan 2016), α_k = 2 / (1 + √(1 + 4/α²_{k-1})), λ_k = t/α_k, three
              sequences. Ours restarts where a step turns against the movement (O'Donoghue, Candès 2015): restarts where
              the middle sequence slows down, as the package has them, came at every other step here and left nothing of
              the acceleration. The answer is the aggregated sequence, which has exact zeros; theirs is the middle one.
conjugate:    β ← S(β + s (b d - ∇)), S with sλ, d the last move by its length s, b that of Polak and Ribière, not
              below zero, of the gradient mappings (β - S(β - t∇)) / t; s is t, 2t, 4t … while the objective falls. No
              step raises it. The thesis has a proximal conjugate gradient that we have not read: this one is ours.
"""

from operator import itemgetter
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fisherexp.methods.statistics.nonconvex_penalties import Penalty, concave_slope, soft_threshold, value

Loss = Literal["squared", "logistic"]
Solver = Literal["accelerated", "proximal", "conjugate"]


class SparseFit(NamedTuple):
    """What is minimized. inputs: (n, d); outcomes: (n,); strength: λ, one or (d,). shape: a of SCAD, γ of MCP."""

    inputs: Tensor
    outcomes: Tensor
    strength: float | Tensor
    shape: float
    penalty: Penalty
    loss: Loss = "squared"

    def objective(self, coefficients: Tensor) -> float:
        """Loss and penalties."""
        predicted = self.inputs @ coefficients
        if self.loss == "squared":
            loss = (self.outcomes - predicted).square().mean() / 2
        else:
            loss = (softplus(predicted) - self.outcomes * predicted).mean()
        return float(loss + value(coefficients, self.strength, self.shape, self.penalty))

    def slope(self, coefficients: Tensor) -> Tensor:
        """Gradient of all but λ|β|: (d,)."""
        predicted = self.inputs @ coefficients
        predicted = predicted.sigmoid() if self.loss == "logistic" else predicted
        gradient = self.inputs.T @ (predicted - self.outcomes) / len(self.outcomes)
        return gradient + concave_slope(coefficients, self.strength, self.shape, self.penalty)

    def lipschitz(self) -> float:
        """L of loss and concave part."""
        inputs = self.inputs
        gram = inputs @ inputs.T if len(inputs) < inputs.shape[1] else inputs.T @ inputs
        most = float(torch.linalg.eigvalsh(gram)[-1]) / len(inputs)
        concave = {"lasso": 0.0, "scad": 1 / (self.shape - 1), "mcp": 1 / self.shape}[self.penalty]
        return max(most / 4 if self.loss == "logistic" else most, concave)


class State(NamedTuple):
    """Where the iteration stands. aggregated: the answer so far (d,). residual: of the stationarity at the last one.

    proximal: the accelerated sequence that runs ahead (d,); momentum: α of its next step. move, mapping: of the
    last conjugate step, by its length, and the gradient mapping where it began (d,)."""

    aggregated: Tensor
    proximal: Tensor
    move: Tensor
    mapping: Tensor
    momentum: float = 1.0
    residual: float = float("inf")


def beginning(coefficients: Tensor) -> State:
    """The state from which all three start."""
    still = torch.zeros_like(coefficients)
    return State(coefficients, coefficients, still, still)


def advanced(state: State, fit: SparseFit, bound: float, solver: Solver = "accelerated") -> State:
    """One iteration. bound: L."""
    return {"accelerated": accelerated, "proximal": proximal, "conjugate": conjugate}[solver](state, fit, 0.99 / bound)


def proximal(state: State, fit: SparseFit, step: float) -> State:
    """One proximal gradient step of length `step`."""
    here = state.aggregated
    there = soft_threshold(here - step * fit.slope(here), step * fit.strength)
    return state._replace(aggregated=there, residual=float((here - there).abs().max()) / step)


def accelerated(state: State, fit: SparseFit, step: float) -> State:
    """One accelerated step of Ghadimi and Lan, or the last before a restart."""
    alpha = state.momentum
    middle = alpha * state.proximal + (1 - alpha) * state.aggregated
    gradient, length = fit.slope(middle), step / alpha
    aggregated = soft_threshold(middle - step * gradient, step * fit.strength)
    ahead = soft_threshold(state.proximal - length * gradient, length * fit.strength)
    momentum = 2 / (1 + (1 + 4 / alpha**2) ** 0.5)
    if (middle - aggregated) @ (aggregated - state.aggregated) > 0:
        ahead, momentum = aggregated, 1.0
    residual = float((middle - aggregated).abs().max()) / step
    return state._replace(aggregated=aggregated, proximal=ahead, momentum=momentum, residual=residual)


def conjugate(state: State, fit: SparseFit, step: float) -> State:
    """One step along gradient and last move, `step` long or twice, four times … that while the objective falls."""
    here, before, gradient = state.aggregated, state.mapping, fit.slope(state.aggregated)

    def moved(length: float, share: float | Tensor) -> tuple[float, Tensor, float]:
        there = soft_threshold(here + length * (share * state.move - gradient), length * fit.strength)
        return fit.objective(there), there, length

    plain = moved(step, 0.0)
    mapping = (here - plain[1]) / step
    share = (mapping @ (mapping - before) / before.square().sum().clamp(min=1e-300)).clamp(min=0)
    best = min(plain, moved(step, share), key=itemgetter(0))
    while (longer := moved(2 * best[2], share))[0] < best[0]:
        best = longer
    _, there, length = best
    residual = float(mapping.abs().max())
    return state._replace(aggregated=there, move=(there - here) / length, mapping=mapping, residual=residual)


def largest_strength(inputs: Tensor, outcomes: Tensor) -> float:
    """The least λ at which all coefficients are zero, of either loss. outcomes: less their mean."""
    return float((inputs.T @ outcomes).abs().max()) / len(outcomes)
