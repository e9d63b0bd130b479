"""Oscillation of integer weights: how often a code goes back where it came from (Nagel et al., ICML 2022)."""

import torch
from torch import Tensor, nn


class Oscillation(nn.Module):
    """Follows the codes of one matrix step by step.

    A reversal is a change in the direction opposite to the last change; steps without a change leave the last one.
    frequency: moving average of reversals, of weight 0.01. reversals, changes, steps: counted since `restart`.
    """

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes.clone())
        self.register_buffer("direction", torch.zeros_like(codes))
        self.register_buffer("frequency", torch.zeros_like(codes))
        for name in ("reversals", "changes", "steps"):
            self.register_buffer(name, torch.tensor(0))

    @torch.no_grad()
    def update(self, codes: Tensor) -> None:
        """Codes after another step."""
        direction = (codes - self.codes).sign()
        reversed_ = direction * self.direction < 0
        self.frequency.mul_(0.99).add_(0.01 * reversed_)
        self.direction.copy_(torch.where(direction != 0, direction, self.direction))
        self.codes.copy_(codes)
        self.reversals += reversed_.sum()
        self.changes += (direction != 0).sum()
        self.steps += 1

    def restart(self) -> None:
        """Count from here on."""
        for counter in (self.reversals, self.changes, self.steps):
            counter.zero_()
