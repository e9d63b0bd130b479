"""Does a model prefer right answers to wrong ones, and do its preferences look like those of one that never learned?

Definitions of TOFU (Maini et al. 2024, arXiv 2401.06121, §2.2) as open-unlearning's code has them (Dorna et al. 2025,
arXiv 2506.12618). Losses are means over the tokens of an answer, in nats; P(a|q)^(1/|a|) = exp(-loss).
"""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

TINY = 1e-10


def truth_ratio(
    right: Tensor, wrong: Tensor, fact: Tensor, average: Literal["geometric", "arithmetic"] = "geometric"
) -> Tensor:
    """R = mean_i P(wrong_i|q)^(1/|wrong_i|) / P(right|q)^(1/|right|) of each fact, (n,): above 1, wrong answers are
    preferred.

    right: losses (n,) of the right answers in other words. wrong: losses (m,) of wrong ones, fact (m,) the place of
    theirs in `right`; NaN for a fact without any. average: 'geometric' is exp of the mean of -loss, as in the code of
    both; 'arithmetic' is the mean of probabilities, as in the paper's equation and its table of utility.
    """
    values = torch.exp(-wrong) if average == "arithmetic" else -wrong
    mean = _sums(values, fact, len(right)) / _sums(torch.ones_like(wrong), fact, len(right))
    return (mean if average == "arithmetic" else mean.exp()) / (torch.exp(-right) + TINY)


def closer_to_one(ratios: Tensor) -> float:
    """Mean of min(R, 1/R), in [0, 1]: 1 where right and wrong are told apart by nothing. Of what is to be forgotten."""
    return torch.minimum(ratios, 1 / (ratios + TINY)).mean().item()


def true_preferred(ratios: Tensor) -> float:
    """Mean of max(0, 1 - R), in [0, 1]: 1 where wrong answers have no probability. Of what is to be kept."""
    return (1 - ratios).clamp_min(0).mean().item()


def normalized_probability(right: Tensor, wrong: Tensor, fact: Tensor) -> Tensor:
    """P(right) / (P(right) + Σ_i P(wrong_i)), each to the power of one over its length, (n,): a choice among answers.
    Arguments: see truth_ratio; here `right` is of the answer itself."""
    probability = torch.exp(-right)
    return probability / (probability + _sums(torch.exp(-wrong), fact, len(right)) + TINY)


def forget_quality(ratios: Tensor, oracle: Tensor) -> float:
    """p-value of the two-sample Kolmogorov–Smirnov test between truth ratios (n,) of a model and (m,) of one that never
    learned the facts: below 0.05, the two can be told apart."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(ratios.numpy(), oracle.numpy()).pvalue)


def model_utility(figures: Iterable[float]) -> float:
    """Harmonic mean n / Σ 1/f of figures in [0, 1]: 0 where one of them is."""
    figures = list(figures)
    return 0.0 if min(figures) <= 0 else len(figures) / math.fsum(1 / figure for figure in figures)


def membership_auc(learned: Tensor, held_out: Tensor) -> float:
    """Area under the ROC curve in [0, 1] of scores (n,), (m,) that are higher for texts less likely learned: 1 where
    every one that was learned scores below all others, 0.5 where nothing tells them apart."""
    from sklearn.metrics import roc_auc_score

    labels = np.r_[np.zeros(len(learned)), np.ones(len(held_out))]
    return float(roc_auc_score(labels, torch.cat([learned, held_out]).numpy()))


def _sums(values: Tensor, fact: Tensor, count: int) -> Tensor:
    return torch.zeros(count, dtype=values.dtype).index_add(0, fact, values)
