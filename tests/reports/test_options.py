"""The options column says what a person would type, and no hash of a file but where names alone would not do."""

import pytest
from made_records import record

from fisherexp.reports.grouping import option, rows, selected

FIRST, SECOND = "0123456789abcdef" * 2, "f" * 32


def of_file(seed, name, content, lr=0.1):
    run = record("ssd", seed, 90.0)
    run["semantic"] = run["semantic"] | {"data": {"path": [name, content], "lr": lr}}
    return run


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        ([("a.csv", FIRST), ("b.csv", SECOND)], ["path=a.csv", "path=b.csv"]),
        ([("a.csv", FIRST), ("a.csv", SECOND)], ["path=a.csv@012345", "path=a.csv@ffffff"]),
        ([("a.csv", FIRST), ("a.csv", FIRST)], [""]),
    ],
)
def test_a_file_is_its_name(files, shown):
    assert [row.options for row in rows([of_file(i, *file) for i, file in enumerate(files)])] == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.1, "0.1"),
        ([1, None], "[1, null]"),
        ([["a.npz", FIRST]], "[a.npz]"),
        ("x", "x"),
    ],
)
def test_values_are_written_as_the_command_line_has_them(value, text):
    assert option(value, [value]) == text


def test_what_the_column_says_is_a_filter():
    runs = [record("ssd", 0, 90.0, alpha=alpha) for alpha in (None, 0.5)]
    assert selected(runs, ["method.alpha=null"]) == selected(runs, ["method.alpha=None"]) == runs[:1]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [("0.003", 1), ("3e-3", 1), ("3E-03", 1), ("0.3e-2|1", 2), ("1.0", 1), ("true", 1), ("0.03", 0), ("lr", 0)],
)
def test_a_filter_takes_a_number_in_any_form(wanted, count):
    """And truth is no number: 1 leaves it out."""
    runs = [record("ssd", 0, 50.0, alpha=alpha) for alpha in (0.003, 1, True)]
    assert len(selected(runs, [f"method.alpha={wanted}"])) == count
