"""Optimal transport with entropy between two histograms: drawn instances, pairs of images, the user's own file."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.locations import data_folder
from fisherexp.config.types import Count, Positive, Precision
from fisherexp.data import transport
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.transport import CloudInstance, TransportInstance
from fisherexp.problems.entropic_transport import figures_of
from fisherexp.problems.memory import refuse_what_does_not_fit
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

# Entries of the matrix of costs: kept whole up to the first, else made in parts of the second.
LARGEST_WHOLE, PART = 2**24, 2**22
PUBLISHED_ETA = 1200.0  # Tang et al. (ICLR 2024), of all their instances


class Transport(Numerical):
    """min over P ≥ 0 of ⟨C, P⟩ + (1/η) Σ P log P with P 1 = a and Pᵀ 1 = b. A solution is a pair of potentials.

    eta: η, the sharpness, in units of 1/cost. dtype: of the instance, and so of whatever solves it.

    Metrics, in float64 for either dtype: marginal_error, L1, of the plan as it is. Of that plan rounded to the right
    marginals (Altschuler, Weed, Rigollet 2017): transport_cost ⟨C, P⟩; entropy -Σ P log P in nats; relative_gap, the
    duality gap as a share of the objective, which bounds how far the objective is from the fixed point's whatever
    solver was at work.
    """

    provides = ("transport",)
    headings = {"transport_cost": "cost", "marginal_error": "marginal\nerror", "relative_gap": "relative\ngap"}
    better = {"transport_cost": "lower", "marginal_error": "lower", "relative_gap": "lower"}

    def __init__(self, eta: Positive, dtype: Precision = "float64") -> None:
        super().__init__()
        self.eta, self.dtype = eta, getattr(torch, dtype)

    @abstractmethod
    def draw(self, seed: int) -> TransportInstance:
        """The instance of a seed. Raises DataError, in one line, for what the user can put right."""

    def read(self, seed: int) -> Mapping[str, Tensor]:
        drawn = self.draw(seed)._asdict() | {"eta": torch.tensor(self.eta, dtype=torch.float64)}
        drawn.pop("rows", None)
        return drawn

    @property
    def transport(self) -> TransportInstance:
        """The instance, once loaded."""
        return TransportInstance(**{**self.instance, "eta": float(self.instance["eta"])})

    def evaluate(self, solution: tuple[Tensor, Tensor]) -> dict[str, float]:
        x, y = (part.double() for part in solution)
        found = {name: float(value) for name, value in figures_of(x, y, self.transport.in_float64()).items()}
        names = ("transport_cost", "marginal_error", "entropy")
        return {name: found[name] for name in names} | {"relative_gap": found["gap"] / abs(found["objective"])}

    def about(self) -> dict[str, Any]:
        return {"n": len(self.transport.a), "m": len(self.transport.b), "eta": self.eta}


class RandomAssignment(Transport):
    """n points of equal weight on either side, costs uniform in [0, 1], drawn from the run's seed."""

    def __init__(self, n: Count = 500, eta: Positive = PUBLISHED_ETA, dtype: Precision = "float64") -> None:
        super().__init__(eta, dtype)
        self.n = n

    @property
    def altered(self) -> bool:
        return (self.n, self.eta, self.dtype) != (500, PUBLISHED_ETA, torch.float64)

    def draw(self, seed: int) -> TransportInstance:
        remedy = "a smaller data.n, or data=transport_clouds, which goes by parts"
        refuse_what_does_not_fit(self.n, self.n, self.n, self.dtype, remedy)
        return transport.random_assignment(self.n, self.eta, seed, self.dtype)


class PointClouds(Transport):
    """Two clouds of n and m points in the unit cube, squared distances: a plan that is not concentrated.

    rows_at_once: of the matrix of costs, which is made in parts of so many rows and never whole. None: all rows up to
    2²⁴ entries, of more as many as have 2²² entries.
    """

    def __init__(
        self,
        n: Count = 60,
        m: Count = 40,
        dimension: Count = 2,
        eta: Positive = 50.0,
        rows_at_once: Count | None = None,
        dtype: Precision = "float64",
    ) -> None:
        super().__init__(eta, dtype)
        self.n, self.m, self.dimension = n, m, dimension
        self.rows = n if n * m <= LARGEST_WHOLE else max(1, PART // m)
        if rows_at_once is not None:
            self.rows = min(rows_at_once, n)

    def draw(self, seed: int) -> TransportInstance | CloudInstance:
        remedy = f"data.rows_at_once={max(1, PART // self.m)}, or less"
        refuse_what_does_not_fit(self.n, self.m, self.rows, self.dtype, remedy)
        if self.rows < self.n:
            return transport.cloud_parts(self.n, self.m, self.eta, self.rows, seed, self.dimension, self.dtype)
        return transport.point_clouds(self.n, self.m, self.eta, seed, self.dimension, self.dtype)

    @property
    def transport(self) -> TransportInstance | CloudInstance:
        if self.rows == self.n:
            return super().transport
        return CloudInstance(**{**self.instance, "eta": self.eta, "rows": self.rows})


class ImagePair(Transport):
    """Two training images, drawn from the run's seed, as histograms over their pixels; squared distances.

    images: a data set of gray images. background: added to every pixel of an image scaled to [0, 1].
    """

    distance: transport.Distance = "squared"

    def __init__(
        self,
        images: LabeledData,
        eta: Positive = PUBLISHED_ETA,
        background: Positive = 0.01,
        dtype: Precision = "float64",
    ) -> None:
        super().__init__(eta, dtype)
        self.images, self.background = images, background

    @property
    def altered(self) -> bool:
        """Published figures are those of MNIST."""
        return type(self.images).__name__ != "MNIST" or (self.eta, self.dtype) != (PUBLISHED_ETA, torch.float64)

    def draw(self, seed: int) -> TransportInstance:
        train = self.images.load().train
        if train.inputs.shape[1] != 1:
            raise DataError(f"data.images={self.images.title}: images have {train.inputs.shape[1]} channels, not one")
        places = torch.randperm(len(train), generator=generator("image_pair", seed))[:2]
        left, right = train.subset(places).inputs[:, 0]
        return transport.image_pair(left, right, self.eta, self.distance, self.background, self.dtype)


class ImagePairAbsolute(ImagePair):
    """The same with city-block distances between pixels."""

    distance = "absolute"


class TransportFile(Transport):
    """The user's own .npz file with arrays a (n,), b (m,) and cost (n, m); `path` is absolute, in the working directory
    or in the data folder.

    eta: in units of 1/cost: 1000 / cost.max() is sharp, 10 / cost.max() is not. root: see LabeledData.
    """

    paths = ("path",)

    def __init__(self, path: str, eta: Positive, root: str | None = None, dtype: Precision = "float64") -> None:
        super().__init__(eta, dtype)
        self.path, self.root = path, data_folder(root)

    def draw(self, seed: int) -> TransportInstance:
        places = (Path(self.path).expanduser(), self.root / self.path)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataError(f"transport: there is no '{self.path}' in {Path.cwd()} or {self.root}; set data.path")
        return transport.read_instance(found, self.eta, self.dtype)
