"""A low-rank matrix to be found from random measurements of it, some of which are gross errors."""

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.machine import available_memory
from fisherexp.config.types import Count, NonNegative, Precision, Share
from fisherexp.data.errors import DataError
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

WORTH_SAYING = 10**8  # bytes
BLOCK = 2**20  # entries that are drawn at a time, in float64 whatever the measurements are kept in


class CorruptedLowRank(Numerical):
    """y_i = ⟨A_i, X*⟩ + s_i for i = 1 … `measurements`, drawn from the run's seed.

    X* (dimension, dimension) is the projection on a random subspace of `rank` dimensions, A_i has independent standard
    normal entries. A share `outliers` of the s_i is normal with deviation `outlier_scale`, the others are zero.

    A solution is a factor U (dimension, any) of X = U Uᵀ. relative_error: ‖X - X*‖ / ‖X*‖ in the Frobenius norm.
    The measurements are kept in memory, in `dtype`: 8 or 4 · measurements · dimension² bytes, which is said from
    100 MB on; what cannot fit is refused before anything is drawn. Those in float32 are those in float64, rounded.
    """

    provides = ("matrix_measurements",)
    headings = {"relative_error": "relative\nerror"}
    better = {"relative_error": "lower"}

    def __init__(
        self,
        dimension: Count = 30,
        rank: Count = 3,
        measurements: Count = 1200,
        outliers: Share = 0.3,
        outlier_scale: NonNegative = 10.0,
        dtype: Precision = "float64",
    ) -> None:
        super().__init__()
        if rank > dimension:
            raise ValueError(f"data.rank={rank}: at most data.dimension={dimension}")
        self.dimension, self.rank, self.measurements = dimension, rank, measurements
        self.outliers, self.outlier_scale = outliers, outlier_scale
        self.dtype = getattr(torch, dtype)

    @property
    def bytes_needed(self) -> int:
        return self.dtype.itemsize * self.measurements * self.dimension**2

    def read(self, seed: int) -> Mapping[str, Tensor]:
        self._must_fit()
        draw, kind = generator("corrupted_low_rank", seed), torch.float64
        basis = torch.linalg.qr(torch.randn(self.dimension, self.rank, generator=draw, dtype=kind)).Q
        operators = torch.empty(self.measurements, self.dimension**2, dtype=self.dtype)
        for part in operators.flatten().split(BLOCK):
            part.copy_(torch.randn(part.shape, generator=draw, dtype=kind))
        truth = (basis @ basis.T).to(self.dtype)
        values = operators @ truth.flatten()
        wrong = torch.randperm(self.measurements, generator=draw)[: round(self.outliers * self.measurements)]
        gross = self.outlier_scale * torch.randn(len(wrong), generator=draw, dtype=kind)
        values[wrong] += gross.to(self.dtype)
        return {"operators": operators, "values": values, "truth": truth}

    def _must_fit(self) -> None:
        available = available_memory()
        sizes = f"corrupted_low_rank: {self.measurements} measurements of dimension {self.dimension} take"
        line = f"{sizes} {self.bytes_needed / 1e9:.3g} GB of memory"
        if available is not None and self.bytes_needed > available:
            most = math.isqrt(available // (self.dtype.itemsize * self.measurements))
            raise DataError(f"{line}, {available / 1e9:.3g} GB are free; data.dimension={most} would fit")
        if self.bytes_needed > WORTH_SAYING:
            print(line, file=sys.stderr)

    def error(self, factor: Tensor) -> float:
        """‖U Uᵀ - X*‖ / ‖X*‖."""
        factor, truth = factor.double(), self.instance["truth"].double()
        return float((factor @ factor.T - truth).norm() / truth.norm())

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        return {"relative_error": self.error(solution)}

    def about(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in ("dimension", "rank", "measurements", "outliers")}
        return {**sizes, "gigabytes": self.bytes_needed / 1e9}
