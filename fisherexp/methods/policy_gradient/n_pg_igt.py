"""N-PG-IGT: normalized policy gradient whose momentum is kept unbiased by implicit gradient transport.

    θ̃_t = θ_t + (1 - η_t)/η_t (θ_t - θ_{t-1}),   τ_t ~ π_θ̃
    d_t = (1 - η_t) d_{t-1} + η_t g(τ_t, θ̃_t),   θ_{t+1} = θ_t + γ_t d_t / ‖d_t‖
    η_t = (2 / (t + 2))^{4/5},   γ_t = γ_0 · 2 / (t + 2)

Fatkhullin et al., ICML 2023, arXiv 2302.01734; the transport is that of Arnold et al., NeurIPS 2019, arXiv 1906.03532.
On a quadratic d_t has the gradient at θ_t as its mean: old gradients are carried along, without any second derivative.
The authors' code forms θ̃_t before it moves on to η_t, so with η_{t-1}; we follow the paper, and official_lag does as
the code does. No baseline is subtracted from the returns, where theirs fits a linear one to the batch before.
"""

from torch import nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.policy_gradient.ascent import Ascent, Gradient, decay, normalized
from fisherexp.methods.policy_gradient.method import PolicyGradient

MOMENTUM_POWER = 4 / 5
STEP_POWER = 1.0


def n_pg_igt_step(state: Ascent, gradient: Gradient, step_size: float, official_lag: bool = False) -> Ascent:
    """One step; step_size: γ_0. official_lag: look ahead with η_{t-1}; then the first two steps do not."""
    t = state.iteration
    eta, ahead = decay(t, MOMENTUM_POWER), decay(max(t - 1, 0) if official_lag else t, MOMENTUM_POWER)
    point = state.theta + (1 - ahead) / ahead * (state.theta - state.previous)
    direction = (1 - eta) * state.direction + eta * gradient(point)
    return state.moved(direction, step_size * decay(t, STEP_POWER) * normalized(direction), batches=1)


class NPGIGT(PolicyGradient):
    """official_lag: see n_pg_igt_step. Further options: see PolicyGradient. Episodes are drawn at the point ahead, and
    so is the curve of returns."""

    name = "n_pg_igt"
    paper = "Fatkhullin et al., ICML 2023, arXiv 2302.01734"

    def __init__(
        self, model: nn.Module, step_size: Positive, episodes: Count, total_episodes: Count, official_lag: bool = False
    ) -> None:
        super().__init__(model, step_size, episodes, total_episodes)
        self.official_lag = official_lag

    def advance(self) -> Ascent:
        return n_pg_igt_step(self.ascent, self.sampled.gradient, self.step_size, self.official_lag)
