"""Normalized policy gradient with momentum: N-PG-IGT without its look-ahead, and so its baseline.

    d_t = (1 - η_t) d_{t-1} + η_t g(τ_t, θ_t),   θ_{t+1} = θ_t + γ_t d_t / ‖d_t‖
    η_t = (2 / (t + 2))^{2/3},   γ_t = γ_0 · 2 / (t + 2)

Cutkosky, Mehta, ICML 2020, arXiv 2002.03305; schedules from the code of Fatkhullin et al., ICML 2023, arXiv 2302.01734.
"""

from fisherexp.methods.policy_gradient.ascent import Ascent, Gradient, decay, normalized
from fisherexp.methods.policy_gradient.method import PolicyGradient

MOMENTUM_POWER = 2 / 3
STEP_POWER = 1.0


def normalized_momentum_step(state: Ascent, gradient: Gradient, step_size: float) -> Ascent:
    """One step; step_size: γ_0."""
    eta = decay(state.iteration, MOMENTUM_POWER)
    direction = (1 - eta) * state.direction + eta * gradient(state.theta)
    return state.moved(direction, step_size * decay(state.iteration, STEP_POWER) * normalized(direction), batches=1)


class NormalizedMomentum(PolicyGradient):
    """Options: see PolicyGradient."""

    paper = "Cutkosky, Mehta, ICML 2020, arXiv 2002.03305"

    def advance(self) -> Ascent:
        return normalized_momentum_step(self.ascent, self.sampled.gradient, self.step_size)
