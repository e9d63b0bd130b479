"""What can be asked of a model's curvature over batches: functions for the Measure callback, usable alone.

Each takes (model, batches) and options, and returns tensors by name, the same on every rank; with several ranks
`batches` are this rank's share. batches: (inputs, targets), re-iterable. loss: the name of a likelihood in
fisherexp.curvature. The model is evaluated in eval mode and left as it was.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive, Size
from fisherexp.curvature import (
    LowRankFisher,
    batch_gradients,
    extreme_eigenpairs,
    ggn_operator,
    gradient_second_moments,
    hessian_operator,
    hutchinson_hessian_diagonal,
    per_sample_gradient_norms,
)
from fisherexp.ranks import joined_over_ranks, over_ranks, rank
from fisherexp.seeds import generator


def eigenvalues(
    model: nn.Module,
    batches: Iterable,
    count: Count = 5,
    matrix: Literal["hessian", "ggn"] = "hessian",
    which: Literal["largest", "smallest", "magnitude"] = "largest",
    tolerance: Positive = 1e-3,
    max_products: Count = 100,
    seed: Size = 0,
    *,
    loss: str = "cross_entropy",
) -> dict[str, Tensor]:
    """`count` extreme eigenvalues of the Hessian or Gauss-Newton matrix, by Lanczos.

    Returns values and residuals (count,), float64; each residual bounds the distance from an eigenvalue.
    """
    operator = {"hessian": hessian_operator, "ggn": ggn_operator}[matrix](model, loss, batches)
    pairs = extreme_eigenpairs(
        _over_all_ranks(operator, _samples(batches)),
        operator.like,
        count,
        which=which,
        tol=tolerance,
        max_products=max_products,
        generator=generator("eigenvalues", seed),
    )
    return {"values": pairs.values, "residuals": pairs.residuals}


def hutchinson(
    model: nn.Module,
    batches: Iterable,
    probes: Count = 30,
    gauss_newton: bool = False,
    seed: Size = 0,
    *,
    loss: str = "cross_entropy",
) -> dict[str, Tensor]:
    """Estimate of the Hessian's (or Gauss-Newton matrix's) diagonal by random signs, with its standard error.

    Returns mean/<parameter> and error/<parameter>. Every batch of every rank draws signs of its own, so other
    numbers of ranks give other estimates of the same diagonal.
    """
    signs = generator("hutchinson", seed, rank())
    found = hutchinson_hessian_diagonal(model, loss, batches, probes, gauss_newton=gauss_newton, generator=signs)
    weight = torch.tensor(float(_samples(batches)))
    sums = {f"mean/{name}": weight.to(part) * part for name, part in found.mean.items()}
    sums |= {f"error/{name}": (weight.to(part) * part).square() for name, part in found.standard_error.items()}
    device = next(iter(sums.values())).device
    sums = over_ranks(sums | {"weight": weight.to(device)})
    total = sums.pop("weight")
    return {name: (part if name.startswith("mean/") else part.sqrt()) / total for name, part in sums.items()}


def low_rank(
    model: nn.Module, batches: Iterable, damping: Positive = 1e-5, *, loss: str = "cross_entropy"
) -> dict[str, Tensor]:
    """Rows for a LowRankFisher (M-FAC, arXiv 2107.03356): the gradient of each batch's mean loss.

    Returns gradients (m, d) and damping (1,); the diagonal (d,) of the Fisher they
    make, and the diagonal of the inverse of that Fisher plus damping.
    """
    rows = joined_over_ranks(torch.stack(list(batch_gradients(model, loss, batches))))
    fisher = LowRankFisher(rows)
    return {
        "gradients": rows,
        "damping": torch.tensor([damping], dtype=torch.float64),
        "diagonal": fisher.diagonal(),
        "inverse_diagonal": fisher.inverse_diagonal(damping),
    }


def gradient_norms(
    model: nn.Module,
    batches: Iterable,
    labels: Literal["empirical", "pseudo", "expected"] = "empirical",
    parameters: list[str] | None = None,
    *,
    loss: str = "cross_entropy",
) -> dict[str, Tensor]:
    """Norm of each sample's gradient, (N,) by parameter: samples in the order of the batches, ranks in turn."""
    found = [
        per_sample_gradient_norms(model, images, targets, labels=labels, loss=loss, parameters=parameters)
        for images, targets in batches
    ]
    return {name: joined_over_ranks(torch.cat([norms[name] for norms in found])) for name in found[0]}


def second_moments(
    model: nn.Module,
    batches: Iterable,
    parameters: list[str],
    labels: Literal["empirical", "pseudo", "expected"] = "empirical",
    *,
    loss: str = "cross_entropy",
) -> dict[str, Tensor]:
    """The full Fisher block (P, P) of each of the named parameters: E[vec(G) vec(G)ᵀ] over samples."""
    count = torch.tensor(float(_samples(batches)))
    found = gradient_second_moments(model, batches, parameters=parameters, labels=labels, loss=loss)
    device = next(iter(found.values())).device
    sums = {name: count.to(block) * block for name, block in found.items()}
    sums = over_ranks(sums | {"count": count.to(device)})
    total = sums.pop("count")
    return {name: block / total.to(block) for name, block in sums.items()}


def _samples(batches: Iterable) -> int:
    return sum(len(labels) for _, labels in batches)


def _over_all_ranks(operator: Callable[[Any], Mapping[str, Tensor]], weight: int) -> Callable:
    """The operator of the mean over all ranks' batches, from each rank's own and its number of samples."""

    def product(vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sums = {name: weight * image for name, image in operator(vector).items()}
        some = next(iter(sums.values()))
        sums = over_ranks(sums | {"weight": torch.tensor(float(weight)).to(some)})
        total = sums.pop("weight")
        return {name: image / total for name, image in sums.items()}

    return product
