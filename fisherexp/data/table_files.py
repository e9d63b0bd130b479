"""Tables of text files as columns of strings, each row with its line number for messages."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fisherexp.data.errors import DataError

ADULT_COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]
ADULT_TARGET = "income"
HOUSING_TARGET = "median_house_value"


@dataclass(frozen=True, eq=False)
class Table:
    """columns: name -> str objects (N,), without surrounding spaces. lines: int64 (N,). source: the file's name."""

    columns: dict[str, np.ndarray]
    lines: np.ndarray
    source: str

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def rows(self, places: np.ndarray) -> "Table":
        """The rows at `places` (k,), in that order."""
        return Table({name: values[places] for name, values in self.columns.items()}, self.lines[places], self.source)


def read_table(
    path: Path, separator: str = ",", names: Sequence[str] | None = None, comment: str | None = None
) -> Table:
    """A text file (UTF-8) of one row a line, quoted as spreadsheets do; blank lines do not count.

    names: of the columns; by default the first line holds them. comment: rows that begin with it do not count, either.
    Raises DataError, in one line, for a file that is
    missing, empty or not text, for rows of another length than the header, and for headers that repeat or are blank.
    """
    if len(separator) != 1:
        raise DataError(f"data.separator={separator!r}: one character is expected, e.g. ',' or ';' or a tab")
    rows, lines = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            for row in reader:
                if any(cell.strip() for cell in row) and not (comment and row[0].startswith(comment)):
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{path} is empty")
    if names is None:
        names, rows, lines = rows[0], rows[1:], lines[1:]
        _check_header(names, path, separator)
        if not rows:
            raise DataError(f"{path} has a header but no rows")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise DataError(f"{path}: line {line} has {len(row)} values; there are {len(names)} columns")
    cells = np.array(rows, dtype=object).reshape(len(rows), len(names))
    columns = {name: cells[:, place] for place, name in enumerate(names)}
    return Table(columns, np.array(lines), path.name)


def _check_header(names: list[str], path: Path, separator: str) -> None:
    if len(names) < 2:
        likely = next((f", e.g. {mark!r}" for mark in ";\t|," if mark in names[0]), "")
        raise DataError(
            f"{path} has the one column {names[0]!r} with data.separator={separator!r}; set another one{likely}"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if "" in names:
        remedy = "; row numbers? Save it without" if names[0] == "" else ""
        raise DataError(f"{path}: column {names.index('') + 1} has no name in the header{remedy}")
    if repeated:
        raise DataError(f"{path}: the header names '{repeated[0]}' {names.count(repeated[0])} times")


def split_rows(table: Table, test_share: float, generator: torch.Generator) -> tuple[Table, Table]:
    """(training rows, test rows), each in the file's order. Raises DataError if one of them were empty."""
    test = round(test_share * len(table))
    if not 0 < test < len(table):
        raise DataError(f"data.test_share={test_share} of {len(table)} rows leaves {test} for testing")
    order = torch.randperm(len(table), generator=generator).numpy()
    return table.rows(np.sort(order[test:])), table.rows(np.sort(order[:test]))


def read_adult(folder: Path) -> tuple[Table, Table]:
    """The census of 1994 (Kohavi 1996, UCI Adult): adult.data, 32,561 rows, and adult.test, 16,281.

    UCI's adult.test begins with a line of comment and ends its labels with a full stop; copies without are read, too.
    """
    tables = []
    for name in ("adult.data", "adult.test"):
        path = folder / name
        if not path.exists():
            raise DataError(f"Adult: {name} is missing; put UCI's file at {path}")
        table = read_table(path, names=ADULT_COLUMNS, comment="|")
        labels = np.array([label.rstrip(".") for label in table.columns[ADULT_TARGET]], dtype=object)
        tables.append(replace(table, columns={**table.columns, ADULT_TARGET: labels}))
    return tables[0], tables[1]


def read_california_housing(path: Path) -> Table:
    """20,640 districts of 1990 (Pace, Barry 1997), with missing values and distance to the ocean (Géron's copy).

    scikit-learn's copy has other columns, averages per household: the two are not the same data.
    """
    if not path.exists():
        raise DataError(f"California housing: {path.name} is missing; put it at {path}")
    table = read_table(path)
    if HOUSING_TARGET not in table.columns or "ocean_proximity" not in table.columns:
        raise DataError(f"{path} is another copy of California housing: {', '.join(table.columns)}")
    return table
