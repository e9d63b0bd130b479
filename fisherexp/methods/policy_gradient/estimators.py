"""Unbiased estimates of the gradient and of Hessian-vector products of the expected return, from whole episodes.

    Φ(θ; τ) = Σ_h Ψ_h log π_θ(a_h | s_h),   Ψ_h = Σ_{i≥h} γ^i r_i
    ∇J = E[∇Φ],   ∇²J v = E[∇Φ · (Σ_h ∇log π · v) + ∇²Φ v],   τ ~ π_θ

The gradient is Williams' (Machine Learning 1992) with rewards to go (Baxter, Bartlett, JAIR 2001; Sutton et al., 2000),
the Hessian that of Shen et al., ICML 2019; both as Fatkhullin et al., ICML 2023, arXiv 2302.01734 use them. γ keeps the
step's own number, as it must for ∇J to be the gradient of the discounted return.
The authors' code multiplies the batch's mean gradient by its mean score instead of averaging the products, averages
over steps instead of summing over an episode, and gives the product the wrong sign. That is biased, so we do not.
"""

import torch
from torch import Tensor, nn
from torch.func import grad, jvp

from fisherexp.data.environments.episodes import Episodes, outputs


def rewards_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Ψ (B, L) of rewards (B, L), which are zero after an episode's end.

    A baseline b(s_h) may be subtracted from it: both estimates stay unbiased if it was not fitted to these episodes.
    """
    powers = discount ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    return (rewards * powers).flip(1).cumsum(1).flip(1)


def log_probs(policy: nn.Module, theta: Tensor, episodes: Episodes) -> Tensor:
    """log π_θ(a_h | s_h), (B, L), nats; zero after an episode's end."""
    found = policy.log_prob(outputs(policy, theta, episodes.observations), episodes.actions)
    return found.where(episodes.running, torch.zeros_like(found))


def policy_gradient(policy: nn.Module, theta: Tensor, episodes: Episodes, to_go: Tensor) -> Tensor:
    """Mean over episodes of ∇Φ, (P,), at θ (P,), from Ψ = to_go (B, L)."""
    theta = theta.detach().requires_grad_()
    phi = (log_probs(policy, theta, episodes) * to_go).sum(1).mean()
    return torch.autograd.grad(phi, theta)[0]


def hessian_product(policy: nn.Module, theta: Tensor, vector: Tensor, episodes: Episodes, to_go: Tensor) -> Tensor:
    """Mean over episodes of ∇Φ (Σ_h ∇log π · v) + ∇²Φ v, (P,), at θ and for v (P,), from Ψ = to_go (B, L).

    One forward pass with tangents and one backward pass through it.
    """

    def along(theta: Tensor) -> tuple[Tensor, Tensor]:
        logs = log_probs(policy, theta, episodes)
        return logs.sum(1), (logs * to_go).sum(1)

    def contracted(theta: Tensor) -> Tensor:
        (_, phi), (score, slope) = jvp(along, (theta,), (vector,))
        return (score.detach() * phi + slope).mean()

    return grad(contracted)(theta.detach())
