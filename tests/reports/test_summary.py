"""A run on one screen: nothing of its table is cut, however narrow the terminal."""

import pytest

from fisherexp.reports.summary import print_summary

RECORD = {
    "names": {"method": "ssd", "data": "digits", "model": "small_cnn", "scenario": "none"},
    "config": {"scenario": {}},
    "seed": 0,
    "headings": {
        "retain_accuracy": "retain\nacc. %",
        "forget_accuracy": "forget\nacc. %",
        "mia": "attack\nsuccess",
    },
    "metrics": {
        "before": {"retain_accuracy": 99.0, "forget_accuracy": 98.0, "mia": 75.0},
        "after": {"retain_accuracy": 97.5, "forget_accuracy": 0.0, "mia": 12.5},
    },
    "command": "python run.py method=ssd",
}


@pytest.mark.parametrize(
    ("width", "line"),
    [(80, ["after", "97.5", "0.0", "12.5"]), (31, ["attack", "success", "75", "12.5"])],
    ids=["a line for each stage", "a line for each metric"],
)
def test_every_figure_stands_in_a_line_with_its_name(width, line, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    print_summary(RECORD, tmp_path, found=False)
    printed = capsys.readouterr().out
    assert line in [text.split() for text in printed.splitlines()]
    assert "…" not in printed
