"""HARPG and N-HARPG: recursive momentum, carried along by a Hessian-vector product at a random point of the last step.

    θ̂ = q θ_t + (1 - q) θ_{t-1}, q ~ U(0, 1),   τ̂ ~ π_θ̂,   B v = an estimate of ∇²J(θ̂) v,   v = θ_t - θ_{t-1}
    d_t = (1 - η_t)(d_{t-1} + B v) + η_t g(τ_t, θ_t),   η_t = 2 / (t + 2)
    HARPG: θ_{t+1} = θ_t + γ_0 (2 / (t + 2))^{1/2} d_t      N-HARPG: θ_{t+1} = θ_t + γ_0 · 2 / (t + 2) · d_t / ‖d_t‖

Fatkhullin et al., ICML 2023, arXiv 2302.01734. E[B v] over q and τ̂ is exactly ∇J(θ_t) - ∇J(θ_{t-1}). The first step
has η = 1 and needs no product. The product is the derivation's, not the authors' code's: see estimators.py. One q
serves all parameters, as there. No baseline is subtracted from the returns, where theirs fits a linear one to the batch
before.
"""

from torch import nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.policy_gradient.ascent import Ascent, Gradient, Product, decay, normalized
from fisherexp.methods.policy_gradient.method import PolicyGradient

MOMENTUM_POWER = 1.0
STEP_POWER = 1 / 2
NORMALIZED_STEP_POWER = 1.0


def harpg_step(
    state: Ascent, gradient: Gradient, product: Product, mix: float, step_size: float, normalize: bool = False
) -> Ascent:
    """One step; mix: q. step_size: γ_0. normalize: N-HARPG. From the second step on two batches are drawn."""
    eta = decay(state.iteration, MOMENTUM_POWER)
    carried, batches = state.direction, 1
    if state.iteration > 0:
        between = mix * state.theta + (1 - mix) * state.previous
        carried, batches = carried + product(between, state.theta - state.previous), 2
    direction = (1 - eta) * carried + eta * gradient(state.theta)
    if normalize:
        step = step_size * decay(state.iteration, NORMALIZED_STEP_POWER) * normalized(direction)
    else:
        step = step_size * decay(state.iteration, STEP_POWER) * direction
    return state.moved(direction, step, batches)


class HARPG(PolicyGradient):
    """product_episodes: behind each Hessian-vector product. normalize: N-HARPG. Further options: see PolicyGradient."""

    paper = "Fatkhullin et al., ICML 2023, arXiv 2302.01734"

    def __init__(
        self,
        model: nn.Module,
        step_size: Positive,
        episodes: Count,
        product_episodes: Count,
        total_episodes: Count,
        normalize: bool = False,
    ) -> None:
        super().__init__(model, step_size, episodes, total_episodes)
        self.product_episodes, self.normalize = product_episodes, normalize

    @property
    def hessian_episodes(self) -> int:
        return self.product_episodes

    def advance(self) -> Ascent:
        s = self.sampled
        mix = s.uniform()
        return harpg_step(self.ascent, s.gradient, s.product, mix, self.step_size, self.normalize)


class NHARPG(HARPG):
    """HARPG under a name of its own in tables, for `normalize` set to true."""

    name = "n_harpg"
    stream = "HARPG"
