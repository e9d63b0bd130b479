"""Directions whose distribution is to be found: drawn from a von Mises-Fisher distribution, or vectors from a file."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.locations import data_folder
from fisherexp.config.types import Count, Dimension, Positive
from fisherexp.data.errors import DataError, reason_of
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator
from fisherexp.special import von_mises_fisher


class Directions(Numerical):
    """Unit vectors (n, p), a part to fit and a part to judge by. A solution is a pair: mean direction (p,), κ.

    held_out_log_likelihood: mean log-density of the part to judge by, in nats; uniform_log_likelihood: that of the
    uniform distribution, which knows nothing.
    """

    provides = ("directions",)
    headings = {"held_out_log_likelihood": "held-out\nlog-lik."}
    better = {"held_out_log_likelihood": "higher", "concentration_error": "lower", "kl_divergence": "lower"}

    @abstractmethod
    def read(self, seed: int) -> Mapping[str, Tensor]:
        """train and test."""

    @property
    def train(self) -> Tensor:
        """The part to fit, once loaded."""
        return self.instance["train"]

    def evaluate(self, solution: tuple[Tensor, Tensor]) -> dict[str, float]:
        mean, kappa = solution
        test = self.instance["test"]
        found = von_mises_fisher.log_density(test, mean, kappa).mean()
        nothing = von_mises_fisher.log_peak(torch.zeros_like(kappa), test.shape[1])
        return {"held_out_log_likelihood": float(found), "uniform_log_likelihood": float(nothing)}

    def about(self) -> dict[str, Any]:
        n, p = self.train.shape
        return {"n": n, "p": p}


class SampledDirections(Directions):
    """n vectors to fit and as many to judge by, drawn from the run's seed around a random mean direction.

    concentration_error: of κ, relative to the true one. kl_divergence: of the true distribution from the fitted one,
    in nats.
    """

    name = "directions"
    headings = {
        "held_out_log_likelihood": "held-out\nlog-lik.",
        "concentration_error": "error of\nκ",
        "kl_divergence": "KL",
    }

    def __init__(self, n: Count = 1000, p: Dimension = 2048, concentration: Positive = 1000.0) -> None:
        super().__init__()
        self.n, self.p, self.concentration = n, p, concentration

    def read(self, seed: int) -> Mapping[str, Tensor]:
        draw = generator("directions", seed)
        mean = torch.randn(self.p, generator=draw, dtype=torch.float64)
        mean = mean / mean.norm()
        drawn = von_mises_fisher.sample(mean, self.concentration, 2 * self.n, draw)
        return {"train": drawn[: self.n], "test": drawn[self.n :], "mean": mean}

    def evaluate(self, solution: tuple[Tensor, Tensor]) -> dict[str, float]:
        true = torch.tensor(self.concentration, dtype=torch.float64)
        divergence = von_mises_fisher.kl_divergence(self.instance["mean"], true, *solution)
        error = abs(float(solution[1]) / self.concentration - 1)
        return {**super().evaluate(solution), "concentration_error": error, "kl_divergence": float(divergence)}

    def about(self) -> dict[str, Any]:
        return {**super().about(), "concentration": self.concentration}


class DirectionFile(Directions):
    """The user's own .npz file with `train` and `test`, vectors (n, p) of any length: features of a network, say.

    path: absolute, in the working directory or in the data folder. root: see LabeledData.
    """

    paths = ("path",)

    def __init__(self, path: str, root: str | None = None) -> None:
        super().__init__()
        self.path, self.root = path, data_folder(root)

    def read(self, seed: int) -> Mapping[str, Tensor]:
        places = (Path(self.path).expanduser(), self.root / self.path)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataError(f"directions: there is no '{self.path}' in {Path.cwd()} or {self.root}; set data.path")
        try:
            arrays = np.load(found, allow_pickle=False)
            parts = {name: torch.from_numpy(np.asarray(arrays[name], dtype=np.float64)) for name in ("train", "test")}
        except (KeyError, ValueError, IndexError, OSError) as error:
            raise DataError(
                f"{found}: an .npz file with arrays train and test is expected ({reason_of(error)})"
            ) from None
        return {name: _directions(part, f"{found}: {name}") for name, part in parts.items()}


def _directions(vectors: Tensor, where: str) -> Tensor:
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] < 2:
        raise DataError(f"{where} has shape {tuple(vectors.shape)}; (n, p) with p of at least 2 is expected")
    lengths = vectors.norm(dim=1)
    wrong = ~(lengths.isfinite() & (lengths > 0))
    if wrong.any():
        raise DataError(f"{where}[{int(wrong.nonzero()[0])}] has length {float(lengths[wrong][0]):g} and no direction")
    return vectors / lengths[:, None]
