"""Regressions with many columns of which few matter: drawn, or a table of numbers of the user's own."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.errors import DataError
from fisherexp.data.table_files import Table
from fisherexp.seeds import generator

CORRELATION = 0.5
Shape = Literal["linear", "square"]
Outcomes = Literal["continuous", "binary"]


def drawn(
    n: int, features: int, signals: int, noise: float, shape: Shape, seed: int, outcomes: Outcomes = "continuous"
) -> dict[str, Tensor]:
    """inputs (n, features) with correlations 0.5^|j-k|; outcomes (n,); coefficients (features,), the truth.

    `signals` columns, spread evenly, have coefficients of ±2 in turn. linear: outcomes Xβ + noise; square: (X² - 1)β +
    noise, which no correlation shows. binary: 1 where this is above zero, else 0, the noise of a logistic law: with
    noise 1 a logistic regression of these coefficients.
    """
    if not 0 < signals <= features:
        raise DataError(f"data.signals={signals}: 1 to data.features={features} are expected")
    draw = generator("sparse_regression", seed)
    normal = {"generator": draw, "dtype": torch.float64}
    inputs = torch.randn(n, features, **normal)
    for column in range(1, features):  # an autoregression has these correlations
        inputs[:, column] = CORRELATION * inputs[:, column - 1] + (1 - CORRELATION**2) ** 0.5 * inputs[:, column]
    coefficients = torch.zeros(features, dtype=torch.float64)
    places = torch.arange(signals) * (features // signals)
    coefficients[places] = 2.0 * (1 - 2 * (torch.arange(signals) % 2)).double()
    seen = inputs if shape == "linear" else inputs.square() - 1
    signal = seen @ coefficients
    if outcomes == "binary":
        found = (signal + noise * torch.rand(n, **normal).logit() > 0).double()
    else:
        found = signal + noise * torch.randn(n, **normal)
    return {"inputs": inputs, "outcomes": found, "coefficients": coefficients}


def numbers(table: Table, target: str) -> tuple[dict[str, Tensor], list[str]]:
    """inputs and outcomes of a table whose columns are all numbers, and the inputs' names. DataError for others."""
    if target not in table.columns:
        raise DataError(f"data.target={target}: {table.source} has {', '.join(list(table.columns)[:20])}")
    names, columns = [name for name in table.columns if name != target], {}
    for name, values in table.columns.items():
        try:
            columns[name] = np.array([float(value) for value in values])
        except ValueError:
            raise DataError(f"{table.source}: column '{name}' is not of numbers; leave it out of the file") from None
        if not np.isfinite(columns[name]).all():
            raise DataError(f"{table.source}: column '{name}' has values that are not finite")
    if not names or len(table) < 3:
        raise DataError(f"{table.source}: a column besides '{target}' and three rows are expected")
    inputs = torch.from_numpy(np.stack([columns[name] for name in names], axis=1))
    return {"inputs": inputs, "outcomes": torch.from_numpy(columns[target])}, names
