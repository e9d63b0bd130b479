"""The notebook was run to its end, in order, and shows what it should; `.ci/run` runs it again."""

import json
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "guides" / "first_steps.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
OUTPUTS = [output for cell in CELLS for output in cell["outputs"]]


def test_every_cell_ran_in_order_without_an_error():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    assert {output["output_type"] for output in OUTPUTS} <= {"stream", "display_data", "execute_result"}


def test_it_shows_tables_a_figure_and_full_bars():
    shown = [kind for output in OUTPUTS for kind in output.get("data", {})]
    assert "image/png" in shown
    html = ["".join(output["data"].get("text/html", "")) for output in OUTPUTS if "data" in output]
    assert any("<table" in text and "retrained oracle" in text for text in html)
    bars = [text for text in html if "<progress" in text]
    assert bars
    for text in bars:
        done, total = text.partition('value="')[2].partition('"')[0], text.partition('max="')[2].partition('"')[0]
        assert done == total


def test_it_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not [place for place in ("/home/", "/root/", "/tmp/", "/work/") if place in text]
    assert "\\u001b" not in text  # colors of a terminal
