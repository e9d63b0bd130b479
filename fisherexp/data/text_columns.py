"""Named columns of text files with a header, read row by row: .tsv, .csv, .jsonl."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from fisherexp.config.problem import nearest
from fisherexp.data.errors import DataError

FORMS = (".tsv", ".csv", ".jsonl")


def text_columns(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """What stands in the columns of these names in each row of a file (UTF-8).

    .csv is quoted as spreadsheets do, .tsv is not quoted; both begin with a line of names. .jsonl has an object in each
    line. Raises DataError, in one line, for another kind of file, for what is unreadable or empty, for a column that is
    not there or there twice, and for a row in which one is empty, or a list or an object.
    """
    read = {".tsv": _table, ".csv": _table, ".jsonl": _objects}.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: a file of texts ends in {', '.join(FORMS)}")
    count = 0
    try:
        for line, found in read(path, *columns):
            if empty := [name for name, value in zip(columns, found, strict=True) if not (value or "").strip()]:
                raise DataError(f"{path}: line {line} has no '{empty[0]}'")
            count += 1
            yield found
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if not count:
        raise DataError(f"{path} is empty: it has no row")


def _table(path: Path, *columns: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    tab = path.suffix.lower() == ".tsv"
    form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tab else {"delimiter": ",", "strict": True}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, **form)
        try:
            names = next(reader, [])
            if not names:
                return
            places = [_place(path, column, names) for column in columns]
            if twice := [column for column in columns if names.count(column) > 1]:
                raise DataError(f"{path}: there are {names.count(twice[0])} columns '{twice[0]}'")
            for row in reader:
                if row and len(row) != len(names):
                    raise DataError(
                        f"{path}: line {reader.line_num} has {len(row)} values; the header has {len(names)}"
                    )
                if row:
                    yield reader.line_num, tuple(row[place] for place in places)
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}") from None


def _objects(path: Path, *columns: str) -> Iterator[tuple[int, tuple[str | None, ...]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number} is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number} is no object of names and values")
            names = list(row)
            found = [row[names[_place(path, column, names, f"line {number}: ")]] for column in columns]
            if nested := [name for name, value in zip(columns, found, strict=True) if isinstance(value, list | dict)]:
                raise DataError(f"{path}: line {number}: '{nested[0]}' holds a list or an object, not a text")
            yield number, tuple(None if value is None or value != value else str(value) for value in found)  # or NaN


def _place(path: Path, column: str, names: list[str], where: str = "") -> int:
    if column not in names:
        near = nearest(column, names)
        hint = f"; nearest: {near}" if near else ""
        raise DataError(f"{path}: {where}there is no column '{column}' among {', '.join(names)}{hint}")
    return names.index(column)
