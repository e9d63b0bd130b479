"""The reusable-holdout experiment: variables are chosen with the help of the holdout that then judges the classifier.

    keep x_j where train and holdout correlations have one sign and both exceed 1/√n
    of these the k with the largest train correlation c_j;  classifier sign(Σ_j sign(c_j) x_j)

Dwork et al., Science 349 (2015), as in the script of its supplement; k = 0, 10, … 500, n = d = 10,000, 100 repetitions
(published: without signal the naive holdout reports 63 ± 0.4 % at k = 500, and the truth is 50 %). `mechanism` decides
how the holdout is asked, both for the correlations and for the accuracies:

- naive: the holdout's own means;
- thresholdout: `gaussian_answers` with threshold 4/√n and tolerance 1/√n, as in the script;
- split: each k has its own n / len(ks) samples of the holdout, used once; the correlations are the naive ones.

Like theirs, k = 0 scores ½ without a classifier, a classifier that outputs 0 is wrong, and where fewer than k
variables pass, all of them are used.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fisherexp.data.biased_gaussians import HoldoutInstance, Sample
from fisherexp.methods.statistics.thresholdout import gaussian_answers

Mechanism = Literal["naive", "thresholdout", "split"]
SIZES = (0, 10, 20, 30, 45, 70, 100, 150, 200, 250, 300, 400, 500)  # the paper's k
THRESHOLD, TOLERANCE, CUTOFF = 4.0, 1.0, 1.0  # in units of 1/√n


class Accuracies(NamedTuple):
    """Fractions of right answers for each k: on the training set, as the holdout reports it, and the truth: (K,)."""

    train: Tensor
    holdout: Tensor
    fresh: Tensor


def correlations(sample: Sample) -> Tensor:
    """Mean of label times variable: (d,)."""
    return sample.labels @ sample.inputs / len(sample.labels)


def selected(train: Tensor, holdout: Tensor, cutoff: float) -> Tensor:
    """Train correlations (d,) where both exceed `cutoff` in the same direction, zero elsewhere."""
    agree = ((train > cutoff) & (holdout > cutoff)) | ((train < -cutoff) & (holdout < -cutoff))
    return torch.where(agree, train, 0)


def sign_weights(correlation: Tensor, k: int) -> Tensor:
    """Signs of the k largest correlations in magnitude, zero elsewhere: (d,)."""
    places = correlation.abs().topk(min(k, len(correlation))).indices
    return torch.zeros_like(correlation).index_copy(0, places, correlation[places].sign())


def accuracy(weights: Tensor, sample: Sample) -> Tensor:
    """Share of labels that sign(x · weights) meets; sign 0 meets none."""
    return ((sample.inputs @ weights).sign() == sample.labels).double().mean()


def noise_of(sample: Sample) -> dict[str, float]:
    """Threshold and tolerance of the mechanism for a sample of this size."""
    unit = 1 / math.sqrt(len(sample.labels))
    return {"threshold": THRESHOLD * unit, "tolerance": TOLERANCE * unit}


def filtered_correlations(data: HoldoutInstance, mechanism: Mechanism, generator: torch.Generator) -> Tensor:
    """Train correlations (d,) of the variables that the holdout, as it is asked, lets pass; zero elsewhere."""
    on_train, on_holdout = correlations(data.train), correlations(data.holdout)
    if mechanism == "thresholdout":
        on_holdout = gaussian_answers(on_train, on_holdout, **noise_of(data.train), generator=generator)
    return selected(on_train, on_holdout, CUTOFF / math.sqrt(len(data.train.labels)))


def share_of_holdout(holdout: Sample, mechanism: Mechanism, number: int, parts: int) -> Sample:
    """What the query of this number, of `parts`, is asked on: all of it, or a part of its own."""
    if mechanism != "split":
        return holdout
    return Sample(*(tensor.tensor_split(parts)[number] for tensor in holdout))


def answered(
    data: HoldoutInstance,
    part: Sample,
    correlation: Tensor,
    k: int,
    mechanism: Mechanism,
    generator: torch.Generator,
) -> Tensor:
    """Accuracies (3,) with k variables: on the training set, as `part` of the holdout reports it, the truth."""
    if k == 0:
        return torch.full((3,), 0.5, dtype=torch.float64)
    weights = sign_weights(correlation, k)
    seen, reported, truth = (accuracy(weights, sample) for sample in (data.train, part, data.fresh))
    if mechanism == "thresholdout":
        reported = gaussian_answers(seen, reported, **noise_of(data.train), generator=generator)
    return torch.stack([seen, reported, truth])


def reusable_holdout(
    data: HoldoutInstance, mechanism: Mechanism, generator: torch.Generator, sizes: Sequence[int] = SIZES
) -> Accuracies:
    """Accuracies for each number of variables in `sizes`."""
    correlation = filtered_correlations(data, mechanism, generator)
    rows = []
    for number, k in enumerate(sizes):
        part = share_of_holdout(data.holdout, mechanism, number, len(sizes))
        rows.append(answered(data, part, correlation, k, mechanism, generator))
    return Accuracies(*torch.stack(rows, dim=1))


def majority_bias(queries: Tensor, answers: Tensor) -> float:
    """How far a query built from answers to others is off, on the sample that gave them.

    queries: (m, n) values ±1 of m queries on n samples, each of population mean zero. answers: (m,) to their means.
    The last query is the majority of the queries, each in the direction of its answer; its population mean is zero.
    Answered by the means themselves its mean is erf(√(m / πn)) on average: about (2/π) √(m/n) for m much below n.
    """
    return float((answers.sign() @ queries).sign().mean())
