"""REINFORCE: a step along the gradient estimated from fresh episodes alone.

    θ_{t+1} = θ_t + γ_t g(τ_t, θ_t),   γ_t = γ_0 (2 / (t + 2))^{2/3}

Williams, Machine Learning 8, 1992; the schedule is that of the vanilla policy gradient in the code of Fatkhullin et
al., ICML 2023, arXiv 2302.01734. Rewards to go instead of the whole return; no baseline, where theirs fits a linear one
to the batch before.
"""

from fisherexp.methods.policy_gradient.ascent import Ascent, Gradient, decay, normalized

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
