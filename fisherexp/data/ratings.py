"""Ratings that users gave to items of their own choice, and a few of pairs drawn at random."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.errors import DataError
from fisherexp.data.table_files import Table, read_table
from fisherexp.seeds import generator

RATINGS = (1.0, 5.0)
NOISE = 0.3


class Rated(NamedTuple):
    """users, items: int64 (n,). ratings: float64 (n,)."""

    users: Tensor
    items: Tensor
    ratings: Tensor


def simulated(users: int, items: int, unbiased: int, test: int, seed: int) -> dict[str, Tensor]:
    """Chosen ratings, `unbiased` and `test` others of pairs drawn uniformly, and a covariate of each user and item.

    With covariates z, z' ~ N(0, 1) of user and item a rating is 3 + sin 2z + z'²/2 + 0.3 z z' and some noise, rounded
    and kept within 1 … 5. A pair is chosen with log-odds -1.2 + 1.2 sin 2z + 0.6 (z'² - 1): what is liked is rated.
    """
    draw = generator("ratings", seed)
    normal = {"generator": draw, "dtype": torch.float64}
    z, other = torch.randn(users, 1, **normal), torch.randn(1, items, **normal)
    noise = NOISE * torch.randn(users, items, **normal)
    opinion = 3 + (2 * z).sin() + other.square() / 2 + 0.3 * z * other + noise
    ratings = opinion.round().clamp(*RATINGS)
    odds = -1.2 + 1.2 * (2 * z).sin() + 0.6 * (other.square() - 1)
    chosen = torch.rand(users, items, **normal) < odds.sigmoid()
    places = torch.randperm(users * items, generator=draw)[: unbiased + test]
    parts = {
        "chosen": chosen.flatten().nonzero().squeeze(1),
        "unbiased": places[:unbiased],
        "test": places[unbiased:],
    }
    found = {name: Rated(at // items, at % items, ratings.flatten()[at]) for name, at in parts.items()}
    return tensors(found) | {"user_features": z, "item_features": other.T.contiguous()}


def tensors(parts: dict[str, Rated]) -> dict[str, Tensor]:
    """`chosen.users` and so on."""
    return {f"{name}.{field}": value for name, part in parts.items() for field, value in part._asdict().items()}


def read_ratings(path: Path, test_path: Path, separator: str, unbiased: float, seed: int) -> dict[str, Tensor]:
    """Chosen ratings of one file, those of random pairs of another; a share `unbiased` of the latter helps, the rest
    tests. Columns user, item and rating of either; there are no covariates. Raises DataError, in one line."""
    tables = [read_table(file, separator) for file in (path, test_path)]
    for table in tables:
        missing = [name for name in ("user", "item", "rating") if name not in table.columns]
        if missing:
            known = ", ".join(table.columns)
            raise DataError(f"{table.source}: no column '{missing[0]}'; it has {known}; it needs user, item, rating")
    ids = {
        name: {value: n for n, value in enumerate(dict.fromkeys(np.concatenate([t.columns[name] for t in tables])))}
        for name in ("user", "item")
    }
    chosen, random = (_rated(table, ids) for table in tables)
    order = torch.randperm(len(random.users), generator=generator("unbiased", seed))
    cut = round(unbiased * len(order))
    if not 0 < cut < len(order):
        raise DataError(f"data.unbiased={unbiased} of {len(order)} rows of {test_path.name} leaves {cut} to help")
    parts = {
        "chosen": chosen,
        **{
            name: Rated(*(part[at] for part in random))
            for name, at in (("unbiased", order[:cut]), ("test", order[cut:]))
        },
    }
    empty = {f"{name}_features": torch.zeros(len(known), 0, dtype=torch.float64) for name, known in ids.items()}
    return tensors(parts) | {"user_features": empty["user_features"], "item_features": empty["item_features"]}


def _rated(table: Table, ids: dict[str, dict[str, int]]) -> Rated:
    places = [torch.tensor([ids[name][value] for value in table.columns[name]]) for name in ("user", "item")]
    ratings = []
    for line, text in zip(table.lines, table.columns["rating"], strict=True):
        try:
            ratings.append(float(text))
        except ValueError:
            raise DataError(f"{table.source}, line {line}: rating '{text}' is not a number") from None
    found = torch.tensor(ratings, dtype=torch.float64)
    if not len(found) or not found.isfinite().all():
        raise DataError(f"{table.source}: finite ratings are expected, and at least one")
    return Rated(*places, found)
