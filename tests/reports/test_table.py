"""Grouping over seeds, the figures of a row, and what tells rows apart, on hand-made records."""

import statistics

import pytest

from fisherexp.reports.grouping import rows, selected
from fisherexp.reports.summary import again, format_metric
from fisherexp.reports.table import (
    Grid,
    grid,
    markdown,
    mean_and_deviation,
    plain,
    print_table,
    rendered,
    within,
)


def record(method: str, seed: int, retain: float, alpha: float = 0.7) -> dict:
    semantic = {"method": {"_target_": method, "alpha": alpha}, "data": {"_target_": "digits"}, "seed": seed}
    names = {"method": method, "data": "digits", "model": "small_cnn", "scenario": "class_forgetting"}
    return {
        "names": names,
        "semantic": semantic,
        "seed": seed,
        "headings": {"retain_accuracy": "retain\nacc. %"},
        "metrics": {"after": {"retain_accuracy": retain}},
    }


def test_seeds_of_one_experiment_are_one_row():
    found = rows([record("ssd", 0, 99.0), record("erm", 0, 98.0), record("ssd", 1, 97.0), record("ssd", 2, 96.5)])
    assert [(row.labels[-1], len(row.runs), row.options) for row in found] == [("erm", 1, ""), ("ssd", 3, "")]
    assert found[1].values("retain_accuracy") == [99.0, 97.0, 96.5]
    assert found[1].values("mia") == []


def test_options_tell_rows_of_one_method_apart():
    found = rows([record("ssd", s, 90.0, alpha=a) for a in (0.7, 0.5) for s in (0, 1)])
    assert [(row.options, len(row.runs)) for row in found] == [("alpha=0.5", 2), ("alpha=0.7", 2)]


@pytest.mark.parametrize("values", [[99.1, 98.7, 99.9], [50.0, 50.0], [1.0, 2.0, 4.0, 8.0]])
def test_mean_and_deviation(values):
    text = mean_and_deviation("retain\nacc. %", values)
    assert text == f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def test_few_values():
    assert mean_and_deviation("membership\nattack %", [12.34]) == "12.3"
    assert mean_and_deviation("membership\nattack %", []) == ""
    assert format_metric("test\nNLL", 0.012345) == "0.0123"


def test_columns_appear_only_where_they_tell_something():
    table = rendered(grid([record("ssd", 0, 99.0), record("erm", 0, 98.0)]))
    assert [" ".join(str(column.header).split()) for column in table.columns] == ["method", "n", "retain acc. %"]
    assert table.title == "digits, small_cnn, class_forgetting"


def test_nothing_is_cut_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_table(grid([record("a_method_with_a_long_name", seed, 99.0 + seed / 2) for seed in (0, 1)]))
    printed = capsys.readouterr().out
    assert "a_method_with_a_long_name" in printed
    assert "99.2 ± 0.4" in printed
    assert "…" not in printed


def test_columns_that_do_not_fit_follow_in_further_tables():
    figures = [[f"{row}{column}" for column in "abcde"] for row in (1, 2)]
    headings = ["method", "n", *(f"figure {column}" for column in "abcde")]
    whole = Grid("title", headings, 1, [["ssd", "3", *figures[0]], ["erm", "3", *figures[1]]], [], frozenset({(1, 4)}))
    parts = within(whole, 40)
    assert [max(map(len, plain(part).splitlines())) <= 40 for part in parts] == [True] * len(parts)
    assert len(parts) > 1
    assert [heading for part in parts for heading in part.headings[1:]] == headings[1:]
    assert [part.cells[1][0] for part in parts] == ["erm"] * len(parts)
    stressed = [part.cells[row][column] for part in parts for row, column in part.bold]
    assert stressed == ["2c"]
    assert within(whole, 200) == [whole]
    assert len(within(whole, 1)) == 6  # a column each, where nothing fits


def test_command_that_computes_afresh():
    assert again("python run.py seed=1") == "python run.py seed=1 rerun=true"
    assert again("python run.py rerun=true") == "python run.py rerun=true"


ALPHAS = [record("ssd", seed, 90.0 + 10 * alpha + seed, alpha=alpha) for alpha in (0.5, 0.7) for seed in (0, 1)]


def test_pooled_keys_are_repetitions():
    (row,) = rows(ALPHAS, over=["method.alpha"])
    assert sorted(row.values("retain_accuracy")) == [95.0, 96.0, 97.0, 98.0]
    assert row.options == ""


def test_columns_by_the_values_of_a_key():
    table = grid([*ALPHAS, record("erm", 0, 50.0, alpha=0.5)], columns="method.alpha")
    assert table.headings == ["method", "0.5\nretain\nacc. %", "0.7\nretain\nacc. %"]
    assert table.cells == [["erm", "50.0", ""], ["ssd", "95.5 ± 0.7", "97.5 ± 0.7"]]


def test_a_reference_model_is_counted_once():
    records = [record(method, seed, 99.0) for method in ("ssd", "scrub") for seed in (0, 1)]
    for found in records:
        found["metrics"]["before"] = {"retain_accuracy": 80.0 + found["seed"]}
    table = grid(records, with_references=True)
    assert table.cells[0] == ["(before)", "2", "80.5 ± 0.7"]
    assert [line[0] for line in table.cells] == ["(before)", "scrub", "ssd"]


@pytest.mark.parametrize(
    ("filters", "count"), [([], 5), (["method=ssd"], 4), (["method=ssd|erm"], 5), (["method.alpha=0.5", "seed=1"], 1)]
)
def test_filters(filters, count):
    assert len(selected([*ALPHAS, record("erm", 0, 50.0)], filters)) == count


@pytest.mark.parametrize("text", ["ssd", "method.alhpa=1"])
def test_wrong_filters_are_said(text):
    with pytest.raises(ValueError, match="method"):
        selected(ALPHAS, [text])


def test_markdown():
    lines = markdown(grid(ALPHAS, over=["method.alpha"])).splitlines()
    assert lines[2:5] == ["| method | n | retain acc. % |", "| --- | ---: | ---: |", "| ssd | 4 | 96.5 ± 1.3 |"]


@pytest.mark.parametrize(("published", "shown"), [([65.6, 1.8], "65.6 ± 1.8"), ([65.6], "65.6")])
def test_published_figures_stand_below_ours(published, shown):
    runs = [record("irm", seed, 65.0) | {"published": {"retain_accuracy": published}} for seed in (0, 1)]
    table = rendered(grid([*runs, record("hgp", 0, 66.0)]))
    assert list(table.columns[0].cells) == ["hgp", "irm", "published"]
    assert list(table.columns[-1].cells)[-1] == shown
