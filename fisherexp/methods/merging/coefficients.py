"""Weights of the experts in a mean, as Fisher merging tries them for more than two models."""

import torch

from fisherexp.seeds import derive


def coefficients(models: int, draws: int) -> list[list[float]]:
    """Equal weights, then `draws` samples of Dirichlet(1, …, 1), always the same ones; each sums to 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("coefficients", models))
        drawn = torch.distributions.Dirichlet(torch.ones(models)).sample((draws,))
    return [[1 / models] * models, *drawn.tolist()]
