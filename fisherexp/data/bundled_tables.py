"""Small tables that come with scikit-learn: no download."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fisherexp.config.types import Probability
from fisherexp.data.table_files import Table, split_rows
from fisherexp.data.tabular import TableOfClasses, TableOfNumbers
from fisherexp.seeds import generator


class BundledClasses(TableOfClasses):
    """test_share: of the rows, drawn for testing from `seed`. Further options: see TableOfClasses."""

    target = "target"

    def __init__(self, test_share: Probability = 0.3, **options: Any) -> None:
        super().__init__(**options)
        self.test_share = test_share


class Wine(BundledClasses):
    """Thirteen measurements of 178 wines of three growers (Aeberhard, Forina 1992)."""

    title = "wine"

    def tables(self) -> tuple[Table, Table]:
        from sklearn.datasets import load_wine

        return drawn(bundled(load_wine()), self.test_share, self.seed)


class BreastCancer(BundledClasses):
    """Thirty measurements of 569 cell nuclei, malignant or benign (Street, Wolberg, Mangasarian 1993)."""

    title = "breast cancer"

    def tables(self) -> tuple[Table, Table]:
        from sklearn.datasets import load_breast_cancer

        return drawn(bundled(load_breast_cancer()), self.test_share, self.seed)


class Diabetes(TableOfNumbers):
    """Ten measurements of 442 patients and the progression of their disease (Efron et al. 2004).

    test_share: of the rows, drawn for testing from `seed`. Further options: see TableOfNumbers.
    """

    title = "diabetes"
    target = "target"

    def __init__(self, test_share: Probability = 0.3, **options: Any) -> None:
        super().__init__(**options)
        self.test_share = test_share

    def tables(self) -> tuple[Table, Table]:
        from sklearn.datasets import load_diabetes

        return drawn(bundled(load_diabetes(scaled=False)), self.test_share, self.seed)


def bundled(bunch: Any) -> Table:
    """A bunch of scikit-learn as the table that a file of it would be: numbers written so that none changes."""
    names = bunch.get("target_names")
    targets = bunch.target if names is None else np.asarray(names)[bunch.target]
    columns = {name: written(values) for name, values in zip(bunch.feature_names, bunch.data.T, strict=True)}
    return Table({**columns, "target": written(targets)}, np.arange(1, len(targets) + 1), "scikit-learn")


def written(values: np.ndarray) -> np.ndarray:
    """Values as text, str objects (N,)."""
    show: Callable[[Any], str] = str if values.dtype.kind in "US" else lambda value: repr(float(value))
    return np.array([show(value) for value in values], dtype=object)


def drawn(table: Table, test_share: float, seed: int) -> tuple[Table, Table]:
    """(training rows, test rows)."""
    return split_rows(table, test_share, generator("test_share", seed))
