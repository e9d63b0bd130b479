"""Synthetic classification where selecting variables overfits a holdout set: three samples of one population.

The experiment of Dwork et al., The reusable holdout, Science 349 (2015): d standard normal variables and labels -1 or
1 of equal probability; without signal nothing predicts the label, with signal twenty variables lean 6/√n towards it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

BIASED = 20  # variables with signal
BIAS = 6.0  # times 1/√n: their mean in units of their standard deviation


class Sample(NamedTuple):
    """inputs: float32 (n, d). labels: float32 (n,), -1 or 1."""

    inputs: Tensor
    labels: Tensor


class HoldoutInstance(NamedTuple):
    """Samples of equal size: one to fit, one to check, and one that is never used, which tells the truth."""

    train: Sample
    holdout: Sample
    fresh: Sample


def holdout_instance(n: int, d: int, signal: bool, generator: torch.Generator) -> HoldoutInstance:
    """n samples of d variables in each part; the paper has n = d = 10,000. With signal d is at least 20."""
    if signal and d < BIASED:
        raise ValueError(f"d={d}: the signal is in {BIASED} variables")
    return HoldoutInstance(*(_sample(n, d, signal, generator) for _ in HoldoutInstance._fields))


def _sample(n: int, d: int, signal: bool, generator: torch.Generator) -> Sample:
    inputs = torch.randn(n, d, generator=generator)
    labels = torch.randint(0, 2, (n,), generator=generator).float() * 2 - 1
    if signal:
        inputs[:, :BIASED] += BIAS / math.sqrt(n) * labels[:, None]
    return Sample(inputs, labels)
