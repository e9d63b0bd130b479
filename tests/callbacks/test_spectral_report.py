"""The report of whole runs, against the functions on the weights these leave; of adapters, see test_finetuning.py."""

import csv
import io
import json

import pytest
import torch
from safetensors.torch import load_file

from fisherexp.callbacks.spectral_report import summary, table
from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment
from fisherexp.metrics.weight_change import weight_change
from fisherexp.runs.workbench import Workbench

SMALL = ["model=mlp", "model.hidden=[16,12]", "training.epochs=1", "threads=1", "progress=off", "scenario=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spectra")


@pytest.fixture(scope="module")
def run(folder):
    """A run with the report, its config and its record."""

    def make(*options):
        cfg = composed([*SMALL, "callbacks=[spectral_report]", f"output_dir={folder}", *options])
        name = str(len([*folder.glob("run*")]))
        return cfg, run_experiment(cfg, folder / f"run{name}", []), folder / f"run{name}"

    return make


@pytest.fixture(scope="module")
def tuned(run):
    return run("method=lora", "method.rank=2", "method.finetune.epochs=1", "callbacks.spectral_report.top=4")


def test_layers_metrics_and_files_are_of_the_source_and_the_final_weights(tuned):
    cfg, record, folder = tuned
    before, after = Workbench(cfg).reference("source").tensors, load_file(folder / "weights.safetensors")
    found = record["outcome"]["spectral_report"]["layers"]
    assert [*found] == ["backbone.layers.1", "backbone.layers.3"]
    expected = {name: weight_change(before[f"{name}.weight"], after[f"{name}.weight"], top=4) for name in found}
    for name, figures in expected.items():
        for figure, value in figures.items():
            given = torch.tensor(found[name][figure], dtype=value.dtype)
            torch.testing.assert_close(given, value, rtol=1e-4, atol=1e-6)
    metrics = record["metrics"]["after"]
    assert metrics["change_rank"] == 2  # of LoRA
    assert metrics["intruders"] == sum(int(each["intruders"]) for each in expected.values())
    assert metrics["stable_rank"] == pytest.approx(sum(each["stable_rank"].item() for each in expected.values()) / 2)
    assert {"stable_rank", "intruders"} <= {*record["headings"]}
    rows = [*csv.DictReader((folder / "spectral_report.csv").open())]
    assert [(row["layer"], row["rows"], row["columns"]) for row in rows] == [
        ("backbone.layers.1", "16", "64"),
        ("backbone.layers.3", "12", "16"),
    ]
    assert float(rows[1]["change_2"]) == pytest.approx(found["backbone.layers.3"]["values_change"][1], rel=1e-5)
    assert {f"spectral_report.{kind}" for kind in ("png", "pdf")} <= {file.name for file in folder.iterdir()}
    json.dumps(record["outcome"])


def test_a_training_from_new_weights_is_watched_even_if_its_result_is_known(run, monkeypatch):
    """The second run finds the first one's weights, and reports the same."""
    monkeypatch.setattr("fisherexp.callbacks.spectral_report.draw", lambda *given: None)
    (cfg, first, _), (_, second, _) = (run("method=erm", "data.train_size=100") for _ in range(2))
    assert first["outcome"]["spectral_report"] == second["outcome"]["spectral_report"]
    start = Workbench(cfg).method("method").model.state_dict()
    name, found = next(iter(first["outcome"]["spectral_report"]["layers"].items()))
    values = torch.linalg.svdvals(start[f"{name}.weight"].double())
    assert found["values_before"] == pytest.approx(values[:10].tolist(), rel=1e-5)
    assert first["metrics"]["after"]["change_rank"] > 10  # all weights: no low rank


def test_what_trains_nothing_is_refused(run):
    with pytest.raises(
        ValueError, match="callbacks=spectral_report looks at what a training changed: Full trains nothing"
    ):
        run("method=full", "method.finetune.epochs=0")


LOST = ("method=lost", "method.training.epochs=1", "data.train_size=100")


def test_branches_that_are_no_one_matrix_are_refused_by_name(run):
    there = r"backbone\.layers\.1, backbone\.layers\.3 are LostLinear, branches with an activation in between"
    with pytest.raises(ValueError, match=there) as error:
        run(*LOST)
    assert "\n" not in str(error.value)


def test_beside_branches_the_other_layers_are_reported_where_these_are_excluded(run):
    _, record, _ = run(*LOST, "callbacks.spectral_report.exclude=layers")
    assert [*record["outcome"]["spectral_report"]["layers"]] == ["head"]


def figures(norm, intruders):
    names = ("rank", "stable_rank", "overlap", "share_in_top", "rest", "undecided")
    return dict.fromkeys(names, norm) | {"relative_norm": norm, "intruders": intruders, "values_before": [1.0, 0.5]}


def test_means_are_over_layers_that_changed():
    found = summary({"a": figures(2.0, 3), "b": figures(0.0, 0), "c": figures(4.0, 1)})
    assert found["stable_rank"] == found["change_rank"] == 3
    assert (found["intruders"], found["changed_layers"]) == (4, 2)
    assert set(summary({"b": figures(0.0, 0)}).values()) == {0}
    assert {"rest", "undecided"} == {*summary({"a": figures(2.0, 3)}, randomized=True)} - {*found}


def test_a_row_of_a_small_layer_has_blanks():
    values = {"values_after": [1.0], "values_change": [1.0]}
    wide = figures(1.0, 1) | {"values_after": [2.0, 1.0], "values_change": [2.0, 1.0]}
    text = table({"a": (1, 5, figures(1.0, 0) | values | {"values_before": [1.0]}), "b": (2, 5, wide)})
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["change_1"], first["change_2"], second["change_2"]) == ("1", "", "1")
