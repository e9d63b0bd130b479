"""Ratings of chosen pairs of users and items: what would they be of all pairs?"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fisherexp.config.locations import user_file
from fisherexp.config.types import Count, Precision, Probability, Separator
from fisherexp.data.errors import DataError
from fisherexp.data.ratings import Rated, read_ratings, simulated
from fisherexp.metrics.likelihood_ratio import auc
from fisherexp.metrics.ranking import ndcg
from fisherexp.problems.numerical import Numerical


class Prediction(NamedTuple):
    """ratings: of the test pairs (n,). mean: of all pairs, as the weighted chosen ratings have it."""

    ratings: Tensor
    mean: float


class Ratings(Numerical):
    """A solution is a Prediction. Metrics, against ratings of pairs drawn uniformly: mean squared and absolute errors,
    and mean_bias, by how much the weighted mean of the chosen ratings exceeds that of the uniform ones. Where `liked`
    says from which rating on an item is liked, how well predictions rank such pairs: auc among all test pairs, ndcg of
    the first five of each user's (users who like none are left out; the authors' code counts them as 1), both in %.

    Features of users and items may have no columns, and are learned then. dtype: of ratings and features, and so of
    whatever is computed from them.
    """

    provides = ("ratings",)
    headings = {"mse": "MSE", "mae": "MAE", "mean_bias": "bias of\nthe mean", "auc": "AUC\n%", "ndcg": "NDCG@5\n%"}
    better = {"mse": "lower", "mae": "lower", "auc": "higher", "ndcg": "higher"}
    liked: float | None = None
    dtype: Precision = "float64"

    @abstractmethod
    def ratings(self, seed: int) -> Mapping[str, Tensor]:
        """Tensors by the names of data/ratings.py, in float64."""

    def read(self, seed: int) -> Mapping[str, Tensor]:
        kind = getattr(torch, self.dtype)
        found = self.ratings(seed)
        return {name: part.to(kind) if part.is_floating_point() else part for name, part in found.items()}

    def part(self, name: str) -> Rated:
        """'chosen', 'unbiased' or 'test', once loaded."""
        return Rated(*(self.instance[f"{name}.{field}"] for field in Rated._fields))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of users and items."""
        return len(self.instance["user_features"]), len(self.instance["item_features"])

    def evaluate(self, solution: Prediction) -> dict[str, float]:
        users, _, truth = self.part("test")
        truth = truth.double()
        off = solution.ratings.double() - truth
        bias = solution.mean - float(truth.mean())
        found = {"mse": float(off.square().mean()), "mae": float(off.abs().mean()), "mean_bias": bias}
        if self.liked is None:
            return found
        likes = truth >= self.liked
        if not 0 < likes.sum() < len(likes):
            counts = f"{int(likes.sum())} of {len(likes)} test ratings"
            raise DataError(f"data.liked={self.liked}: {counts} are as high; some of them are expected, and not all")
        area = auc(solution.ratings[likes], solution.ratings[~likes])
        return found | {"auc": 100 * area, "ndcg": 100 * ndcg(users, solution.ratings, likes)}

    def about(self) -> dict[str, Any]:
        counts = {name: len(self.part(name).users) for name in ("chosen", "unbiased", "test")}
        return dict(zip(("users", "items"), self.shape, strict=True)) | counts


class SimulatedRatings(Ratings):
    """Ratings drawn from the run's seed; who likes an item is more likely to rate it. See data/ratings.py.

    unbiased: ratings of random pairs that a method may use, as a share of users · items; test: as many to test on.
    liked: from which rating on an item is liked.
    """

    title = "simulated_ratings"

    def __init__(
        self,
        users: Count = 200,
        items: Count = 150,
        unbiased: Probability = 0.02,
        test: Probability = 0.2,
        liked: float | None = None,
        dtype: Precision = "float64",
    ) -> None:
        super().__init__()
        self.users, self.items, self.unbiased, self.test, self.liked = users, items, unbiased, test, liked
        self.dtype = dtype

    def ratings(self, seed: int) -> Mapping[str, Tensor]:
        if self.unbiased + self.test > 1:
            raise DataError(f"data.unbiased={self.unbiased} and data.test={self.test} are more than all pairs")
        counts = [max(1, round(share * self.users * self.items)) for share in (self.unbiased, self.test)]
        return simulated(self.users, self.items, *counts, seed)


class RatingsFile(Ratings):
    """Your own tables with columns user, item and rating.

    path: of chosen ratings; test_path: of ratings of random pairs, of which a share `unbiased` helps; absolute, or
    relative to the working directory or the data folder. liked: from which rating on an item is liked. separator:
    between values. root: see LabeledData.
    """

    title = "ratings"
    paths = ("path", "test_path")

    def __init__(
        self,
        path: str,
        test_path: str,
        unbiased: Probability = 0.05,
        liked: float | None = None,
        separator: Separator = ",",
        root: str | None = None,
        dtype: Precision = "float64",
    ) -> None:
        super().__init__()
        self.path, self.test_path, self.unbiased, self.liked = path, test_path, unbiased, liked
        self.separator, self.root, self.dtype = separator, root, dtype

    def ratings(self, seed: int) -> Mapping[str, Tensor]:
        files = (user_file(getattr(self, name), self.root) for name in self.paths)
        return read_ratings(*files, self.separator, self.unbiased, seed)
