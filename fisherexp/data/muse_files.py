"""Rows of files as MUSE has them (Shi et al. 2025, arXiv 2407.06460): JSON in its repository, parquet on the hub."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fisherexp.config.problem import nearest
from fisherexp.data.documents import documents
from fisherexp.data.errors import DataError

ENDINGS = (".json", ".jsonl", ".parquet")


def read_rows(folder: Path, names: Sequence[str], columns: Sequence[str]) -> list[tuple[str, ...]]:
    """What stands in `columns` of every row of the first file of `folder` that there is by one of `names`.

    A name is that of a file without its ending: 'raw/forget' is raw/forget.json (a list, or an object a line),
    raw/forget.jsonl, raw/forget.parquet or all of raw/forget-*.parquet. A row that is a text is its only column.

    Raises DataError, in one line, for what is missing, unreadable or empty, and for a row without a text in a column.
    Of a single column, a blank one is a text: MUSE-News has one.
    """
    for name in names:
        if files := _files(folder, name):
            found = [row for file in files for row in _texts(file, _rows(file), columns)]
            if not found:
                raise DataError(f"{files[0]} is empty: it has no row")
            return found
    raise DataError(f"{folder}: there is no {' or '.join(names)} with one of the endings {', '.join(ENDINGS)}")


def _files(folder: Path, name: str) -> list[Path]:
    single = [file for ending in ENDINGS if (file := folder / f"{name}{ending}").is_file()]
    return single[:1] or sorted(folder.glob(f"{name}-*.parquet"))


def _rows(file: Path) -> list[Any]:
    try:
        if file.suffix == ".parquet":
            return _parquet(file)
        (text,) = documents(file)
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError) as error:  # of both libraries
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from None


def _parquet(file: Path) -> list[Any]:
    try:
        from pyarrow.parquet import read_table
    except ImportError:
        raise DataError(f"{file}: parquet needs PyArrow: pip install 'fisherexp[parquet]'") from None
    return read_table(file).to_pylist()


def _texts(file: Path, rows: Sequence[Any], columns: Sequence[str]) -> list[tuple[str, ...]]:
    found = []
    for number, row in enumerate(rows, start=1):
        held = row if isinstance(row, dict) else {columns[0]: row} if len(columns) == 1 else {}
        for column in columns:
            if column not in held:
                near = nearest(column, held)
                among = f"among {', '.join(held) or 'none'}" + (f"; nearest: {near}" if near else "")
                raise DataError(f"{file}: row {number} has no column '{column}' {among}")
            if not isinstance(held[column], str) or (len(columns) > 1 and not held[column].strip()):
                raise DataError(f"{file}: row {number}: '{column}' holds something that is no text, or an empty one")
        found.append(tuple(held[column] for column in columns))
    return found
