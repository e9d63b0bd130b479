"""Thresholdout: answers from a holdout set that stay valid although each query may depend on earlier answers.

    T̂ = T + Lap(2σ)
    |holdout - train| > T̂ + Lap(4σ):  answer holdout + Lap(σ), spend one unit of the budget, draw T̂ anew
    otherwise:                         answer train

Dwork, Feldman, Hardt, Pitassi, Reingold, Roth: The reusable holdout, Science 349 (2015) and arXiv 1506.02629; the
problem: Preserving Statistical Validity in Adaptive Data Analysis, STOC 2015, arXiv 1411.2411. A query is the mean of
a bounded function over a sample; train and holdout are its values on either. Lap(b) has scale b, standard deviation
√2 b.

The noise scales above are those of the paper's pseudocode as two re-implementations quote it; the paper itself was not
at hand. `gaussian_answers` is the mechanism of the authors' experiment: a fixed threshold, Gaussian noise, no budget.
It treats a tie as train; for accuracies their script treats it as holdout, which has probability zero with noise.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class BudgetSpentError(Exception):
    """A query after the budget was spent: from here on answers would not be protected."""


class ThresholdoutState(NamedTuple):
    """threshold: the noisy T̂ in use. budget: answers from the holdout that are left."""

    threshold: float
    budget: int


class Answer(NamedTuple):
    """value: of the query. from_holdout: whether the holdout gave it, and the budget paid."""

    value: float
    from_holdout: bool


def laplace(shape: tuple[int, ...], scale: float, generator: torch.Generator) -> Tensor:
    """float64 draws of density exp(-|z| / scale) / (2 scale): the difference of two exponentials."""
    first, second = (torch.empty(shape, dtype=torch.float64).exponential_(generator=generator) for _ in range(2))
    return scale * (first - second)


def start(threshold: float, sigma: float, budget: int, generator: torch.Generator) -> ThresholdoutState:
    """The state before the first query. threshold: T. sigma: σ of all noise. Both in units of the queries."""
    return ThresholdoutState(threshold + float(laplace((), 2 * sigma, generator)), budget)


def thresholdout(
    state: ThresholdoutState,
    train: float,
    holdout: float,
    threshold: float,
    sigma: float,
    generator: torch.Generator,
) -> tuple[Answer, ThresholdoutState]:
    """The answer to a query whose means are `train` and `holdout`, and the state for the next one.

    σ = 0 answers exactly: from the training set alone with T = ∞, from the holdout wherever the two differ with T = 0.

    Raises:
        BudgetSpentError: the budget is below 1.
    """
    if state.budget < 1:
        raise BudgetSpentError(f"the holdout's budget is spent (budget={state.budget}); use fresh data")
    if abs(holdout - train) <= state.threshold + float(laplace((), 4 * sigma, generator)):
        return Answer(train, False), state
    value = holdout + float(laplace((), sigma, generator))
    return Answer(value, True), start(threshold, sigma, state.budget - 1, generator)


def gaussian_answers(
    train: Tensor, holdout: Tensor, threshold: float, tolerance: float, generator: torch.Generator
) -> Tensor:
    """Answers to queries with means `train` and `holdout` of one shape, each decided by itself.

    Where |holdout - train| > threshold + noise the holdout's with noise, elsewhere the training set's. Noise is
    Gaussian of standard deviation `tolerance`. The experiment has threshold 4/√n and tolerance 1/√n.
    """
    test, added = (
        tolerance * torch.randn(train.shape, generator=generator, dtype=torch.float64).to(train) for _ in range(2)
    )
    return torch.where((holdout - train).abs() > threshold + test, holdout + added, train)


def laplace_answers(values: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """The plain private mechanism: every mean with its own Lap(scale)."""
    return values + laplace(tuple(values.shape), scale, generator).to(values)
