"""Ratings as a mean, a term of each user, one of each item, and a product of their factors."""

import torch
from torch import Tensor, nn


class Factorization(nn.Module):
    """mean + b_u + b_i + p_u · q_i, made in float64. mean: of the ratings; a draw of small factors from `generator`."""

    def __init__(self, users: int, items: int, factors: int, mean: float, generator: torch.Generator) -> None:
        super().__init__()
        self.users, self.items = (nn.Parameter(0.1 * self._drawn(n, factors, generator)) for n in (users, items))
        self.of_user, self.of_item = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (users, items))
        self.mean = mean

    @staticmethod
    def _drawn(count: int, factors: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, factors, generator=generator, dtype=torch.float64)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        product = (self.users[users] * self.items[items]).sum(1)
        return self.mean + self.of_user[users] + self.of_item[items] + product
