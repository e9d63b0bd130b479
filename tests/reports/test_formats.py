"""Tables as files: what is written can be read back, and LaTeX has no sign that it would read as a command."""

import csv
import re

import pytest
from made_records import record

from fisherexp.reports.comparison import compare
from fisherexp.reports.formats import escaped, latex, save, tidy
from fisherexp.reports.table import formatted, markdown

RUNS = [record(f"m_{name}", s, 90.0 + s + len(name)) for name in ("a", "bb") for s in range(3)]
RUNS[0]["published"] = {"retain_accuracy": [91.5, 0.5]}


def test_csv_holds_every_figure(tmp_path):
    comparison = compare(RUNS, baseline="m_a")
    save(comparison, tmp_path / "t.csv", "deviation")
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 3
    (line,) = [line for line in lines if line["method"] == "m_a" and line["metric"] == "retain_accuracy"]
    assert (float(line["mean"]), float(line["std"]), line["n"]) == (92.0, 1.0, "3")
    assert (float(line["published_mean"]), float(line["published_std"])) == (91.5, 0.5)
    assert (
        float(line["ci95_high"]) - 92.0 == pytest.approx(92.0 - float(line["ci95_low"])) == pytest.approx(2.4841, 1e-4)
    )


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    comparison = compare(RUNS)
    save(comparison, tmp_path / "t.parquet", "deviation")
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == tidy(comparison)


def test_latex():
    text = latex(formatted(compare(RUNS)))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    rows = [line for line in body if line.endswith(r"\\")]
    assert len(rows) == 4  # heads, two methods, a published line
    assert {line.count(" & ") for line in rows} == {4}
    assert r"m\_bb" in text
    assert r"\textbf{93.0 $\pm$ 1.0}" in text
    assert not re.search(r"(?<!\\)[%_#]", text.split(r"\begin{document}")[1].replace(r"\begin{tabular}", ""))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a_b%", r"a\_b\%"), ("α≤1", r"$\alpha$$\leq$1"), ("\\", r"\textbackslash{}"), ("[1]*", "{[}1]{*}")],
)
def test_escaping(text, expected):
    assert escaped(text) == expected


def test_markdown_stresses_the_best():
    assert "| **93.0 ± 1.0** |" in markdown(formatted(compare(RUNS)))


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.md, \.tex, \.csv, \.parquet"):
        save(compare(RUNS), tmp_path / "t.xlsx", "deviation")
