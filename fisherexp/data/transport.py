"""Instances of discrete optimal transport with entropy: two histograms, a cost between their points, a sharpness.

The families are those of Sinkhorn-Newton-Sparse (Tang et al., ICLR 2024, arXiv 2401.12253): random assignment and two
images, with squared or absolute distances between pixels; and two clouds of points, whose plan is far less
concentrated.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.errors import DataError, reason_of
from fisherexp.seeds import generator

Distance = Literal["squared", "absolute"]


class TransportInstance(NamedTuple):
    """min over P ≥ 0 of ⟨C, P⟩ + (1/η) Σ P log P, with P 1 = a and Pᵀ 1 = b.

    a: (n,), b: (m,), positive, of equal sums. cost: C (n, m). eta: η > 0, in units of 1/cost; POT's reg is 1/η.
    """

    a: Tensor
    b: Tensor
    cost: Tensor
    eta: float

    whole = True

    def in_float64(self) -> "TransportInstance | StoredInstance":
        """The same in float64, in parts where it is not: no more memory at once than steps in its own type take."""
        if self.cost.dtype == torch.float64:
            return self
        return StoredInstance(self.a.double(), self.b.double(), self.cost, self.eta, -(-len(self.a) // 4))

    def parts(self) -> Iterator[tuple[slice, "TransportInstance"]]:
        """The rows of each part, and the part: here all in one."""
        yield slice(0, len(self.a)), self


class StoredInstance(NamedTuple):
    """A whole instance whose costs, kept in another type, are brought to that of a and b a few rows at a time."""

    a: Tensor
    b: Tensor
    cost: Tensor
    eta: float
    rows: int

    whole = False

    def parts(self) -> Iterator[tuple[slice, TransportInstance]]:
        """As those of a CloudInstance."""
        for first in range(0, len(self.a), self.rows):
            rows = slice(first, min(first + self.rows, len(self.a)))
            yield rows, TransportInstance(self.a[rows], self.b, self.cost[rows].to(self.a), self.eta)


class CloudInstance(NamedTuple):
    """The same between points, whose squared distances C are made a few rows at a time and never kept.

    a: (n,), b: (m,), positive, of equal sums. left: (n, d), right: (m, d). rows: at a time.
    """

    a: Tensor
    b: Tensor
    left: Tensor
    right: Tensor
    eta: float
    rows: int

    whole = False

    def in_float64(self) -> "CloudInstance":
        """The same in float64, in smaller parts where it is not."""
        rows = self.rows if self.left.dtype == torch.float64 else -(-self.rows // 4)
        return CloudInstance(*(part.double() for part in self[:4]), self.eta, rows)

    def parts(self) -> Iterator[tuple[slice, TransportInstance]]:
        """The rows of each part, and the instance of these rows: its columns have all the weights b."""
        for first in range(0, len(self.a), self.rows):
            rows = slice(first, min(first + self.rows, len(self.a)))
            cost = squared_distances(self.left[rows], self.right)
            yield rows, TransportInstance(self.a[rows], self.b, cost, self.eta)


def instance(a: Tensor, b: Tensor, cost: Tensor, eta: float) -> TransportInstance:
    """The instance, once it is known to have a solution.

    Raises DataError, in one line, for shapes that do not fit, values that are not finite, weights that are not
    positive, unequal sums, or η ≤ 0. Sums may differ by rounding only.
    """
    if a.ndim != 1 or b.ndim != 1 or cost.shape != (len(a), len(b)):
        shapes = f"{tuple(a.shape)}, {tuple(b.shape)} and {tuple(cost.shape)}"
        raise DataError(f"a, b and cost have shapes {shapes}; (n,), (m,) and (n, m) are expected")
    if not cost.is_floating_point() or a.dtype != cost.dtype or b.dtype != cost.dtype:
        raise DataError(f"a, b and cost are {a.dtype}, {b.dtype} and {cost.dtype}; one type of floats is expected")
    if not eta > 0 or eta == float("inf"):
        raise DataError(f"eta={eta}: a positive finite number is expected")
    if not cost.isfinite().all():
        raise DataError(f"cost has {int((~cost.isfinite()).sum())} entries that are not finite")
    for name, weights in (("a", a), ("b", b)):
        wrong = ~(weights.isfinite() & (weights > 0))
        if not len(weights) or wrong.any():
            where = (
                f"{name}[{int(wrong.nonzero()[0])}] = {float(weights[wrong][0]):g}" if len(weights) else "it is empty"
            )
            raise DataError(f"{name} must be positive: {where}; leave out points without weight")
    totals = float(a.sum()), float(b.sum())
    if abs(totals[0] - totals[1]) > max(len(a), len(b)) * torch.finfo(a.dtype).eps * max(totals):
        raise DataError(f"a sums to {totals[0]:.6g} but b to {totals[1]:.6g}; equal sums are expected")
    return TransportInstance(a, b, cost, float(eta))


def random_assignment(n: int, eta: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> TransportInstance:
    """Costs uniform in [0, 1], n points of weight 1/n on either side."""
    cost = torch.rand(n, n, dtype=torch.float64, generator=generator("random_assignment", seed)).to(dtype)
    weights = torch.full((n,), 1 / n, dtype=dtype)
    return instance(weights, weights, cost, eta)


def point_clouds(
    n: int, m: int, eta: float, seed: int = 0, dimension: int = 2, dtype: torch.dtype = torch.float64
) -> TransportInstance:
    """Points uniform in the unit cube, of equal weight within a cloud; the cost is the squared distance."""
    draws = generator("point_clouds", seed)
    left, right = (torch.rand(count, dimension, dtype=torch.float64, generator=draws).to(dtype) for count in (n, m))
    cost = squared_distances(left, right)
    return instance(torch.full((n,), 1 / n, dtype=dtype), torch.full((m,), 1 / m, dtype=dtype), cost, eta)


def cloud_parts(
    n: int, m: int, eta: float, rows: int, seed: int = 0, dimension: int = 2, dtype: torch.dtype = torch.float64
) -> CloudInstance:
    """The instance of `point_clouds` without its matrix."""
    draws = generator("point_clouds", seed)
    left, right = (torch.rand(count, dimension, dtype=torch.float64, generator=draws).to(dtype) for count in (n, m))
    weights = (torch.full((count,), 1 / count, dtype=dtype) for count in (n, m))
    return CloudInstance(*weights, left, right, float(eta), rows)


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Between points (n, d) and (m, d): (n, m)."""
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square()


def image_pair(
    left: Tensor,
    right: Tensor,
    eta: float,
    distance: Distance = "squared",
    background: float = 0.01,
    dtype: torch.dtype = torch.float64,
) -> TransportInstance:
    """Two images (H, W) with values ≥ 0 as histograms over their pixels, each of sum one.

    distance: between pixels, divided by the largest one: squared Euclidean ("squared") or city-block ("absolute").
    background: added to every pixel of an image scaled to [0, 1], since empty pixels have no finite potential.
    """
    if left.shape != right.shape or left.ndim != 2:
        raise DataError(
            f"images have shapes {tuple(left.shape)} and {tuple(right.shape)}; one shape (H, W) is expected"
        )
    height, width = left.shape
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in (height, width))
    places = torch.cartesian_prod(rows, columns)
    gaps = (places[:, None] - places).abs()
    cost = gaps.square().sum(2) if distance == "squared" else gaps.sum(2)
    histograms = []
    for image in (left, right):
        weights = image.double().flatten()
        weights = weights / weights.max() + background
        histograms.append((weights / weights.sum()).to(dtype))
    return instance(*histograms, (cost / cost.max()).to(dtype), eta)


def read_instance(path: Path, eta: float, dtype: torch.dtype = torch.float64) -> TransportInstance:
    """The user's .npz file with arrays a (n,), b (m,) and cost (n, m). Raises DataError, naming the file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("a", "b", "cost") if name not in file]
            if missing:
                there = ", ".join(file.files) or "nothing"
                raise DataError(f"{path} has no {' and no '.join(missing)}; it has {there}")
            arrays = [torch.from_numpy(file[name].astype(np.float64)).to(dtype) for name in ("a", "b", "cost")]
        return instance(*arrays, eta)
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from None
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {reason_of(error)}") from None
