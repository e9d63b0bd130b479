"""Linear dynamics with a quadratic cost: continuous actions, and the return of a linear policy in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearQuadratic:
    """s' = A s + B a + w with w ~ N(0, noise² I); the reward is -(s'ᵀ Q s' + aᵀ R a), paid on the state reached.

    A: (n, n). B: (n, m). Q: (n, n) and R: (m, m), symmetric, positive semidefinite. start: (n,), the mean of the first
    state; start_noise: its standard deviation in each coordinate. horizon: H. discount: γ.
    """

    A: Tensor
    B: Tensor
    Q: Tensor
    R: Tensor
    start: Tensor
    horizon: int
    discount: float
    noise: float = 0.0
    start_noise: float = 0.0

    def reset(self, episodes: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(episodes, len(self.start), dtype=self.start.dtype, generator=generator)
        return self.start + self.start_noise * drawn

    def step(self, observations: Tensor, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        drawn = torch.randn(observations.shape, dtype=observations.dtype, generator=generator)
        reached = observations @ self.A.mT + actions @ self.B.mT + self.noise * drawn
        cost = (reached @ self.Q * reached).sum(1) + (actions @ self.R * actions).sum(1)
        return reached, -cost, torch.zeros(len(reached), dtype=torch.bool)


def expected_return(environment: LinearQuadratic, gain: Tensor, std: Tensor) -> Tensor:
    """J of the policy a ~ N(gain s, diag(std²)), gain (m, n), std (m,); differentiable in both.

    The second moment E[s sᵀ] is carried from step to step; nothing else enters the expected cost.
    """
    e = environment
    identity = torch.eye(len(e.start), dtype=gain.dtype)
    moment = torch.outer(e.start, e.start) + e.start_noise**2 * identity
    closed, spread = e.A + e.B @ gain, torch.diag(std**2)
    total = torch.zeros((), dtype=gain.dtype)
    for h in range(e.horizon):
        acted = gain @ moment @ gain.mT + spread
        moment = closed @ moment @ closed.mT + e.B @ spread @ e.B.mT + e.noise**2 * identity
        total = total - e.discount**h * ((e.Q * moment).sum() + (e.R * acted).sum())
    return total


def optimal_return(environment: LinearQuadratic) -> float:
    """The largest J of all policies, by the Riccati recursion; its gain may change from step to step."""
    e = environment
    cost_to_go, constant = torch.zeros_like(e.Q), 0.0
    for _ in range(e.horizon):
        weight = e.Q + e.discount * cost_to_go
        crossed = e.B.mT @ weight @ e.A
        constant = e.noise**2 * weight.trace() + e.discount * constant
        cost_to_go = e.A.mT @ weight @ e.A - crossed.mT @ torch.linalg.solve(e.R + e.B.mT @ weight @ e.B, crossed)
    first = e.start @ cost_to_go @ e.start + e.start_noise**2 * cost_to_go.trace()
    return -(first + constant).item()
