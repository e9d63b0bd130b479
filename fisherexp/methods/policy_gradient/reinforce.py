"""REINFORCE: a step along the gradient estimated from fresh episodes alone.

    θ_{t+1} = θ_t + γ_t g(τ_t, θ_t),   γ_t = γ_0 (2 / (t + 2))^{2/3}

Williams, Machine Learning 8, 1992; the schedule is that of the vanilla policy gradient in the code of Fatkhullin et
al., ICML 2023, arXiv 2302.01734. Rewards to go instead of the whole return; no baseline, where theirs fits a linear one
to the batch before.
"""

from torch import nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.policy_gradient.ascent import Ascent, Gradient, decay, normalized
from fisherexp.methods.policy_gradient.method import PolicyGradient

STEP_POWER = 2 / 3
NORMALIZED_STEP_POWER = 1.0


def reinforce_step(state: Ascent, gradient: Gradient, step_size: float, normalize: bool = False) -> Ascent:
    """One step; step_size: γ_0.

    normalize: along g / ‖g‖ with γ_t = γ_0 · 2/(t + 2), the control of the normalized methods: no momentum.
    """
    estimate = gradient(state.theta)
    if normalize:
        rate = step_size * decay(state.iteration, NORMALIZED_STEP_POWER)
        return state.moved(estimate, rate * normalized(estimate), batches=1)
    return state.moved(estimate, step_size * decay(state.iteration, STEP_POWER) * estimate, batches=1)


class Reinforce(PolicyGradient):
    """normalize: steps along g / ‖g‖. Further options: see PolicyGradient."""

    paper = "Williams, Machine Learning 1992"

    def __init__(
        self, model: nn.Module, step_size: Positive, episodes: Count, total_episodes: Count, normalize: bool = False
    ) -> None:
        super().__init__(model, step_size, episodes, total_episodes)
        self.normalize = normalize

    def advance(self) -> Ascent:
        return reinforce_step(self.ascent, self.sampled.gradient, self.step_size, self.normalize)
