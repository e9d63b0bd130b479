"""What training did to weight matrices: rank, size and directions of the change, and intruder dimensions.

W (m, n) becomes W', ΔW = W' - W; u_i and u'_j are left singular vectors of W and W', by falling singular values, and
k = min(top, m, n):

    rank           singular values of ΔW above eps (‖W‖_F + ‖W'‖_F), which rounding of W' may leave
    stable_rank    ‖ΔW‖_F² / ‖ΔW‖₂²
    relative_norm  ‖ΔW‖_F / ‖W‖_F
    intruders      how many of u'_1 … u'_k have max_i |⟨u'_j, u_i⟩| < ε, over all i
    overlap        ‖U_kᵀ U'_k‖_F² / k of the leading k: 1 for the same space, k / m by chance
    share_in_top   ‖U_kᵀ ΔW‖_F² / ‖ΔW‖_F²: how much of the change lies in the leading k directions of W

Intruders: Shuttleworth, Andreas, Torralba, Sharma, "LoRA vs Full Fine-tuning: An Illusion of Equivalence", NeurIPS
2025, arXiv 2410.21228, with k = 10 and ε = 0.5. A random direction of m dimensions comes as near as √(2 ln m / m) to
one of m others: below m = 64 an intruder of ε = 0.5 says little. Equal singular values turn freely, which makes
intruders, too.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

NUMBERS_AT_ONCE = 2**24  # of one batch of matrices


def weight_change(
    before: Tensor, after: Tensor, top: int = 10, epsilon: float = 0.5, components: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """The figures above of W and W' (…, m, n), each of shape (…,); stable_rank and share_in_top are 0 where ΔW is.

    Also, by falling singular value: cosines, max_i |⟨u'_j, u_i⟩| (…, k); values_before, values_after, values_change,
    the largest k singular values of W, W', ΔW (…, k).

    components: None for exact decompositions, in float64; else randomized ones (torch.svd_lowrank, of `seed`) of so
    many components, at least k. Then rank is a lower bound, intruders an upper one, and these say how far off:
    rest, the share of ‖ΔW‖_F² in components that were not computed; undecided, how many intruders may be near a u_i
    that was not computed. Both are 0 of exact ones.
    Raises ValueError for shapes that differ, or too few components.
    """
    if before.shape != after.shape:
        raise ValueError(f"weights {tuple(before.shape)} and {tuple(after.shape)} have different shapes")
    k = min(top, *before.shape[-2:])
    if components is not None and components < k:
        raise ValueError(f"components={components} are fewer than the {k} that are looked at: set at least top={top}")
    rounding, precision = torch.finfo(before.dtype).eps, max(before.shape[-2:]) * torch.finfo(torch.double).eps
    before, after = before.double(), after.double()
    change = after - before
    (left, old), (new_left, new) = (_left_and_values(matrix, components, seed) for matrix in (before, after))
    values = torch.linalg.svdvals(change) if components is None else _left_and_values(change, components, seed)[1]

    old_norm, new_norm, norm = (torch.linalg.matrix_norm(matrix) for matrix in (before, after, change))
    squared = norm.square()
    products = new_left[..., :k].mT @ left  # (…, k, components of W)
    cosines = products.abs().amax(-1)
    far = cosines < epsilon
    outside = (1 - products.square().sum(-1)).clamp(min=0).sqrt()  # no other u_i can be nearer
    missing = components is not None and components < min(before.shape[-2:])
    bound = torch.maximum(rounding * (old_norm + new_norm), precision * values[..., 0])
    in_top = (left[..., :k].mT @ change).square().sum((-2, -1))
    return {
        "rank": (values > bound[..., None]).sum(-1),
        "stable_rank": _ratio(squared, values[..., 0].square()),
        "relative_norm": norm / old_norm,
        "intruders": far.sum(-1),
        "overlap": products[..., :k].square().sum((-2, -1)) / k,
        "share_in_top": _ratio(in_top, squared),
        "rest": _ratio((squared - values.square().sum(-1)).clamp(min=0), squared) * missing,
        "undecided": (far & (outside >= epsilon)).sum(-1) * missing,
        "cosines": cosines,
        "values_before": old[..., :k],
        "values_after": new[..., :k],
        "values_change": values[..., :k],
    }


def weight_changes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], **options: int | float | None
) -> dict[str, dict[str, Tensor]]:
    """`weight_change` of matrices by name, those of one shape together; in the order and on the devices of `after`.

    options: see `weight_change`. Matrices of `before` may lie on another device.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for names in _of_one_shape(after):
        new = torch.stack([after[name] for name in names])
        old = torch.stack([before[name] for name in names]).to(new.device)
        together = weight_change(old, new, **options)
        for place, name in enumerate(names):
            found[name] = {figure: values[place] for figure, values in together.items()}
    return {name: found[name] for name in after}


def _left_and_values(matrix: Tensor, components: int | None, seed: int) -> tuple[Tensor, Tensor]:
    if components is None:
        return torch.linalg.svd(matrix, full_matrices=False)[:2]
    with torch.random.fork_rng():  # which svd_lowrank draws from
        torch.manual_seed(seed)
        return torch.svd_lowrank(matrix, q=min(components, *matrix.shape[-2:]), niter=4)[:2]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """0 where the denominator is."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(denominator))


def _of_one_shape(matrices: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Names of matrices that can be stacked, not too many at once."""
    groups: dict[tuple, list[str]] = {}
    for name, matrix in matrices.items():
        groups.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(name)
    for (shape, *_), names in groups.items():
        count = max(1, NUMBERS_AT_ONCE // shape.numel())
        yield from (names[start : start + count] for start in range(0, len(names), count))
