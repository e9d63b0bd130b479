"""From Python: what a run returns is what the command line shows and finds, and importing costs nothing."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import fisherexp
from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

SMALL = ["model.width=4", "training.epochs=2", "method.importance.batch_size=64"]
HEAVY = {"torch", "pytorch_lightning", "hydra", "omegaconf", "pandas", "matplotlib", "numpy", "typer", "rich"}


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def lines(output_dir):
    return ["method=ssd", *SMALL, f"output_dir={output_dir}", "seed=1"]


@pytest.fixture(scope="module")
def record(lines):
    return fisherexp.run(*lines)


def imported_after(line: str) -> set[str]:
    """Which of HEAVY a new process has loaded after a line."""
    code = f"import sys\n{line}\nprint([m for m in {sorted(HEAVY)} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout))


def test_importing_loads_nothing_heavy():
    assert imported_after("import fisherexp; dir(fisherexp)") == set()


def test_asking_for_a_run_does_not_load_torch_before_it_is_needed():
    assert not imported_after("import fisherexp; fisherexp.run, fisherexp.table, fisherexp.load") & {"torch", "pandas"}
    assert "torch" in imported_after("import fisherexp.models.mlp")  # the measurement sees it


def test_every_name_is_there():
    assert set(fisherexp.__all__) <= set(dir(fisherexp))
    assert all(callable(getattr(fisherexp, name)) for name in fisherexp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        fisherexp.rnu  # noqa: B018


def test_run_returns_what_lies_in_the_folder(record):
    on_disk = json.loads((Path(record["folder"]) / "run.json").read_text())
    assert dict(record) == on_disk | {"folder": record["folder"], "code_changed": False}
    assert record["names"]["method"] == "ssd"
    assert record["seed"] == 1


def test_a_run_is_found_again(record, lines, capsys):
    assert fisherexp.run(*lines) == record  # the time it was finished included
    assert capsys.readouterr().out.startswith("found")


def test_a_record_shows_itself(record):
    html, text = record._repr_html_(), repr(record)
    assert "<table" in html
    for word in ("retain", "before", "retrained oracle"):
        assert word in html
        assert word in text
    assert f"{record['metrics']['after']['retain_accuracy']:.1f}" in html


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["method=sdd"], "nearest valid: method="),
        (["method.alhpa=1"], "nearest valid: method.alpha"),
        (["method.alpha=-1"], "nearest valid: method.alpha=0.0"),
        (["seed=1,2"], "loop over its values"),
        (["method=ssd", "scenario=none"], "scenario=class_forgetting"),
        (["method"], "missing EQUAL"),
    ],
)
def test_a_bad_config_is_refused_in_a_line(lines, expected):
    with pytest.raises(fisherexp.ConfigError, match=expected) as refused:
        fisherexp.run(*lines)
    assert "\n" not in str(refused.value)


def test_a_failed_run_says_where_its_traceback_is(tmp_path):
    lines = ["data=arrays", f"data.path={tmp_path / 'nothing.npz'}", f"output_dir={tmp_path}", "method=erm"]
    with pytest.raises(fisherexp.RunFailed, match=r"traceback: .*error\.txt") as failed:
        fisherexp.run(*lines)
    assert "\n" not in str(failed.value)


def test_records_is_a_frame_of_options_and_metrics(record, output_dir):
    frame = fisherexp.records(output_dir)
    assert isinstance(frame, pd.DataFrame)
    [(_, row)] = frame.iterrows()
    assert row["identity"] == record["identity"]
    assert row["model.width"] == 4
    assert row["seed"] == 1
    for stage, metrics in record["metrics"].items():
        for name, value in metrics.items():
            assert row[f"{stage}/{name}"] == value


def test_records_of_no_folder(tmp_path):
    assert fisherexp.records(tmp_path).empty
    with pytest.raises(ValueError, match="there is no folder"):
        fisherexp.records(tmp_path / "nowhere")


def test_a_damaged_record_is_warned_of(tmp_path):
    folder = tmp_path / "ssd" / "digits" / "0123"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "run.json").write_text("{")
    with pytest.warns(UserWarning, match="run.json cannot be read"):
        assert fisherexp.records(tmp_path).empty


@pytest.mark.parametrize("how", ["record", "folder", "hash"])
def test_load_gives_the_network_that_was_evaluated(record, output_dir, lines, how):
    named = {"record": record, "folder": record["folder"], "hash": record["identity"][:6]}[how]
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    model = fisherexp.load(named, output_dir)
    assert not model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()
    setting = Workbench(composed(lines)).setting
    for part, metric in (("test_retain", "retain_accuracy"), ("test_forget", "forget_accuracy")):
        right = total = 0
        for batch in setting.loader(part):
            with torch.no_grad():
                right += (model(batch.inputs).argmax(1) == batch.targets).sum().item()
            total += len(batch.targets)
        assert 100 * right / total == pytest.approx(record["metrics"]["after"][metric], abs=1e-4)


@pytest.mark.parametrize(("named", "reason"), [("ffff", "no finished run"), ("", "no finished run")])
def test_load_says_what_is_not_there(tmp_path, named, reason):
    with pytest.raises(ValueError, match=reason):
        fisherexp.load(named or tmp_path, tmp_path)


@pytest.mark.parametrize("method", ["lq_lora", "task_arithmetic", "lora"])
def test_load_builds_what_the_method_built(method, tmp_path):
    """Methods that put other layers into the network, or keep other networks beside it."""
    record = fisherexp.run(f"method={method}", "training.epochs=1", "trainer=debug", f"output_dir={tmp_path}")
    outputs = fisherexp.load(record)(torch.zeros(2, *Workbench(composed([f"method={method}"])).data.input_shape))
    assert outputs.shape[0] == 2
    assert outputs.isfinite().all()


def test_load_refuses_a_network_that_went_on_changing(tmp_path):
    record = fisherexp.run("method=tent", "training.epochs=1", "trainer=debug", f"output_dir={tmp_path}")
    with pytest.raises(ValueError, match="from batch to batch"):
        fisherexp.load(record)


def test_table_shows_the_mean(record, output_dir):
    table = fisherexp.table("method=ssd", output_dir=output_dir, trials=True)
    shown = f"{record['metrics']['after']['retain_accuracy']:.1f}"
    assert shown in table._repr_html_()
    assert shown in repr(table)


@pytest.mark.parametrize("ask", [fisherexp.table, functools.partial(fisherexp.plot, "cost")])
def test_what_cannot_be_shown_is_said_in_a_line(record, output_dir, ask):
    with pytest.raises(ValueError, match=r"no finished run in .* with method=erm"):
        ask("method=erm", output_dir=output_dir, trials=True)
    with pytest.raises(ValueError, match="'ssd' is no filter"):
        ask("ssd", output_dir=output_dir)


def test_plot_is_a_figure_that_shows_itself(record, output_dir):
    from matplotlib import get_backend
    from matplotlib.figure import Figure

    backend = get_backend(auto_select=False)
    figure = fisherexp.plot("trade_off", output_dir=output_dir, trials=True)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert get_backend(auto_select=False) == backend
    with pytest.raises(ValueError, match="nearest: trade_off"):
        fisherexp.plot("tradeoff", output_dir=output_dir)
