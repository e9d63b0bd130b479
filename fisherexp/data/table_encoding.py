"""Tables as tensors: types of columns found, missing values filled, categories encoded, numbers standardized.

What a column is (numbers or categories) is a fact about both splits; every statistic is the training split's alone.

- Numbers: (value - mean) / standard deviation. Missing ones become the median, and where the training split misses
  some, a feature 'NAME missing' says which (0 or 1).
- Categories: one feature 'NAME=CATEGORY' each (0 or 1), or one standardized feature with their places in alphabetical
  order. Missing is a category of its own if the training split has it. What the training split does not have is no
  category: all zeros, or the mean.
- Columns that are constant in the training split are left out.
"""

import difflib
import math
from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Categories
from fisherexp.data.errors import DataError
from fisherexp.data.table_files import Table

Task = Literal["auto", "classification", "regression"]

MISSING = frozenset({"", "?", "NA", "N/A", "NaN", "nan", "null"})
MOST_CLASSES = 20  # distinct whole numbers that are taken for classes unless data.task says regression
MOST_CATEGORIES = 100  # more are a name or a date rather than a category
OTHERWISE = str.maketrans({"%": "", "\u2212": "-", "\u00a0": "", "\u202f": "", "'": "", "$": "", "€": "", "£": ""})
NUMBERS = 0.5  # share of readable numbers above which the rest of a column are mistakes, not categories


class EncodedTable(NamedTuple):
    """Both splits, and what their numbers mean.

    train_inputs, test_inputs: float32 (N, d). feature_names: d names. left_out: columns constant in training.
    train_targets, test_targets: int64 (N,) places in class_names, or for regression float32 (N,),
    (value - target_mean) / target_std in units of the file. class_names: None for regression.
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    feature_names: list[str]
    left_out: list[str]
    class_names: list[str] | None
    target_mean: float
    target_std: float


def encode_table(
    train: Table,
    test: Table,
    target: str,
    *,
    task: Task = "auto",
    categories: Categories = "one_hot",
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
    standardize_target: bool = True,
    missing: Collection[str] = MISSING,
) -> EncodedTable:
    """Features and targets of both splits.

    target: the column to predict. task: auto takes text, and up to 20 distinct whole numbers, for classes.
    categorical: columns of numbers that are categories. drop: columns to leave out.
    standardize_target: of regression; otherwise targets are in units of the file. missing: what stands for no value.

    Raises DataError, in one line: a column that does not exist, splits with different columns, a target that is
    constant or missing somewhere, unreadable or infinite numbers, too many categories, or no feature left.
    """
    for option, names in (("target", [target]), ("categorical", categorical), ("drop", drop)):
        for name in names:
            _known(name, train, option)
    if target in drop:
        raise DataError(f"data.drop leaves out the target '{target}'")
    if set(train.columns) != set(test.columns):
        different = sorted(set(train.columns) ^ set(test.columns))[0]
        there, absent = (train, test) if different in train.columns else (test, train)
        raise DataError(f"column '{different}' is in {there.source} but not in {absent.source}")
    targets, class_names, mean, std = _targets(train, test, target, task, standardize_target, missing)
    features, names, left_out = [], [], []
    for name in train.columns:
        if name == target or name in drop:
            continue
        values = None if name in categorical else _numbers((train, test), name, missing)
        if values is not None:
            columns, column_names = _numeric(*values, name)
        else:
            columns, column_names = _categorical(train, test, name, categories, missing)
        features += columns
        names += column_names
        if not column_names:
            left_out.append(name)
    if not features:
        raise DataError(f"{train.source}: no column but the target '{target}' varies")
    train_inputs, test_inputs = (
        torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)) for columns in zip(*features, strict=True)
    )
    return EncodedTable(train_inputs, targets[0], test_inputs, targets[1], names, left_out, class_names, mean, std)


Split = tuple[np.ndarray, np.ndarray]  # a column's values in training and test


def _known(name: str, table: Table, option: str) -> None:
    if name not in table.columns:
        known = {column.casefold(): column for column in table.columns}
        near = known[difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.0)[0]]
        raise DataError(f"data.{option}: {table.source} has no column '{name}'; the nearest is '{near}'")


def _distinct(values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Distinct values in the order met, and each row's place among them: what follows works on the few."""
    places: dict[str, int] = {}
    codes = np.array([places.setdefault(value, len(places)) for value in values], dtype=np.int64)
    return list(places), codes


def _numbers(tables: tuple[Table, Table], name: str, missing: Collection[str]) -> Split | None:
    """float64 values with NaN for missing ones; None where the column holds categories."""
    parsed, mistakes, readable, unreadable = [], [], 0, 0
    for table in tables:
        distinct, codes = _distinct(table.columns[name])
        numbers = [math.nan if value in missing else _number(value) for value in distinct]
        wrong = np.array([number is None for number in numbers])[codes]
        parsed.append(np.array([math.nan if number is None else number for number in numbers])[codes])
        readable += int(np.isfinite(parsed[-1]).sum())
        unreadable += int(wrong.sum())
        mistakes += [(table, place) for place in np.flatnonzero(wrong)[:1]]
    if readable <= NUMBERS * (readable + unreadable):
        _check_spelling(tables, name, missing)
        return None
    if mistakes:
        table, place = mistakes[0]
        where = f"{table.source}: line {table.lines[place]}: '{table.columns[name][place]}' in column '{name}'"
        remedy = f"correct it, or set data.categorical=[{name}]"
        raise DataError(f"{where} is not a finite number; {remedy}")
    return parsed[0], parsed[1]


def _check_spelling(tables: tuple[Table, Table], name: str, missing: Collection[str]) -> None:
    """Raise DataError where most values of a column are numbers as they are written elsewhere: 0,5 or 1,000 or 5% or
    with a long minus. As categories they would have no order and no distance."""
    for table in tables:
        values = [value for value in table.columns[name] if value not in missing]
        others = [
            v for v in values if _number(v) is None and _number(v.translate(OTHERWISE).replace(",", "")) is not None
        ]
        if len(others) > NUMBERS * len(values):
            where = f"{table.source}: column '{name}' has numbers written like '{others[0]}'"
            raise DataError(f"{where}; write them plainly, like 1000.5, or set data.categorical=[{name}]")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None  # Python reads 1_000, spreadsheets do not


def _numeric(train: np.ndarray, test: np.ndarray, name: str) -> tuple[list[Split], list[str]]:
    absent = np.isnan(train)
    if absent.all():
        return [], []
    columns, names = [], []
    median = np.median(train[~absent])
    filled = [np.where(np.isnan(values), median, values) for values in (train, test)]
    if filled[0].min() < filled[0].max():
        mean, std = filled[0].mean(), filled[0].std()
        columns.append(tuple((values - mean) / std for values in filled))
        names.append(name)
    if absent.any():
        columns.append((absent, np.isnan(test)))
        names.append(f"{name} missing")
    return columns, names


def _categorical(
    train: Table, test: Table, name: str, categories: Categories, missing: Collection[str]
) -> tuple[list[Split], list[str]]:
    factored = [_distinct(table.columns[name]) for table in (train, test)]
    named = [["missing" if value in missing else value for value in distinct] for distinct, _ in factored]
    known = sorted(set(named[0]))
    if len(known) > MOST_CATEGORIES and categories == "one_hot":
        count = f"{len(known)} categories in {len(train)} rows"
        raise DataError(
            f"{train.source}: column '{name}' has {count}; set data.drop=[{name}] or data.categories=ordinal"
        )
    if len(known) < 2:
        return [], []
    places = {value: float(place) for place, value in enumerate(known)}
    splits = [
        np.array([places.get(value, math.nan) for value in values])[codes]
        for values, (_, codes) in zip(named, factored, strict=True)
    ]
    if categories == "one_hot":
        return [tuple(split == places[value] for split in splits) for value in known], [f"{name}={v}" for v in known]
    mean, std = splits[0].mean(), splits[0].std()
    return [tuple(np.nan_to_num((split - mean) / std) for split in splits)], [name]


def _targets(
    train: Table, test: Table, name: str, task: Task, standardize: bool, missing: Collection[str]
) -> tuple[tuple[Tensor, Tensor], list[str] | None, float, float]:
    tables = (train, test)
    for table in tables:
        absent = np.array([value in missing for value in table.columns[name]])
        if absent.any():
            line = table.lines[np.flatnonzero(absent)[0]]
            raise DataError(
                f"{table.source}: line {line}: the target '{name}' is missing, in {absent.sum()} rows in all"
            )
    numbers = _numbers(tables, name, missing)
    if task == "regression" and numbers is None:
        example = train.columns[name][0]
        raise DataError(f"{train.source}: data.task=regression, but the target '{name}' is text, e.g. '{example}'")
    if numbers is not None and task == "auto":
        distinct = np.unique(np.concatenate(numbers))
        whole = (distinct == np.rint(distinct)).all() and len(distinct) <= MOST_CLASSES
        task = "classification" if whole else "regression"
    values = numbers if numbers is not None else tuple(table.columns[name] for table in tables)
    if len(set(values[0])) < 2:
        raise DataError(f"{train.source}: the target '{name}' is constant in the training rows: {values[0][0]}")
    if task == "regression":
        mean, std = (float(values[0].mean()), float(values[0].std())) if standardize else (0.0, 1.0)
        encoded = tuple(torch.from_numpy(((split - mean) / std).astype(np.float32)) for split in values)
        return encoded, None, mean, std
    classes = sorted(set(values[0]))
    places = {value: place for place, value in enumerate(classes)}
    encoded = []
    for table, split in zip(tables, values, strict=True):
        codes = [places.get(value, -1) for value in split]
        if -1 in codes:
            line, value = table.lines[codes.index(-1)], split[codes.index(-1)]
            raise DataError(f"{table.source}: line {line}: no training row has the class '{value}' of '{name}'")
        encoded.append(torch.tensor(codes))
    return tuple(encoded), [f"{value:g}" if numbers is not None else value for value in classes], 0.0, 1.0
