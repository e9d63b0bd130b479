"""A chain of states with a small reward near the start and a large one at the far end: greed does not find it."""

import torch

from fisherexp.data.environments.finite import FiniteEnvironment


def chain(
    length: int = 6,
    slip: float = 0.1,
    near: float = 0.1,
    far: float = 1.0,
    horizon: int = 12,
    discount: float = 0.9,
) -> FiniteEnvironment:
    """States 0…length-1 from left to right, actions 0 (left) and 1 (right), walls at both ends; starts in state 0.

    slip: probability of moving the other way. near, far: reward of every step that ends in state 0 or in the last
    state. With the defaults the uniform policy's return is 0.4995 and the optimal one 2.8623.
    """
    states = torch.arange(length)
    left, right = (states - 1).clamp(min=0), (states + 1).clamp(max=length - 1)
    transitions = torch.zeros(length, 2, length, dtype=torch.float64)
    for action, (meant, other) in enumerate([(left, right), (right, left)]):
        transitions[states, action, meant] += 1 - slip
        transitions[states, action, other] += slip
    paid = torch.zeros(length, dtype=torch.float64)
    paid[0], paid[-1] = near, far
    start = torch.zeros(length, dtype=torch.float64)
    start[0] = 1
    return FiniteEnvironment(start, transitions, paid.expand_as(transitions), horizon, discount)
