"""The command line as a user sees it: runs, finds, sweeps, goes on after a kill, fails in one line."""

import json
import os
import signal
import subprocess
import time

import forked
import pytest
from forked import run_anew

SMALL = ["model.width=4", "training.epochs=2", "method.importance.batch_size=64"]
PLAIN = ["model.width=4", "training.epochs=2"]


def run(*arguments: str, module: bool = False) -> subprocess.CompletedProcess:
    return forked.run(*(["-m", "fisherexp"] if module else ["run.py"]), *arguments)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished default run on a small net: its output folder and what was printed."""
    output_dir = tmp_path_factory.mktemp("outputs")
    finished = run_anew("run.py", *SMALL, f"output_dir={output_dir}", "logger=[csv,tensorboard]")
    assert finished.returncode == 0, finished.stderr
    return output_dir, finished


def test_summary_shows_stages_place_and_command(done):
    output_dir, finished = done
    words = " ".join(finished.stdout.split())
    for expected in ("before", "after", "retrained oracle", "retain", "forget", "membership", "seconds"):
        assert expected in words
    (folder,) = output_dir.glob("ssd/digits/*")
    assert str(folder) in finished.stdout
    assert "python run.py model.width=4" in finished.stdout
    assert "'logger=[csv,tensorboard]' rerun=true" in finished.stdout


def test_record_says_where_the_result_comes_from(done):
    output_dir, _ = done
    (file,) = output_dir.glob("ssd/digits/*/run.json")
    record = json.loads(file.read_text())
    assert set(record["metrics"]) == {"before", "after", "oracle"}
    assert record["identity"] == file.parent.name
    assert record["config"]["model"]["width"] == 4
    assert record["names"] == {
        "method": "ssd",
        "data": "digits",
        "model": "small_cnn",
        "scenario": "class_forgetting",
    }
    for key in ("command", "code", "versions", "hardware", "data_checksum", "seed", "threads", "costs", "memory"):
        assert record[key] is not None
    costs = record["costs"]
    assert record["metrics"]["after"]["backward_samples"] == sum(
        costs[p]["backward_samples"] for p in ("SSD", "Fisher")
    )
    forget = sum(label == 3 for label in digits_train_labels())
    # Every sample once, and those of its one batch twice more, on which the Fisher of so small a network is verified.
    assert costs["SSD"]["backward_samples"] == costs["SSD"]["forward_samples"] == 3 * forget
    assert record["costs"]["training source"]["forward_samples"] == 2 * 1200
    assert (file.parent / "csv" / "metrics.csv").is_file()
    assert list((file.parent / "tensorboard").glob("events*"))


def digits_train_labels() -> list[int]:
    from fisherexp.data.digits import Digits

    return Digits().load().train.targets.tolist()


def test_a_finished_run_is_found_without_torch(done):
    output_dir, finished = done
    arguments = [*SMALL, f"output_dir={output_dir}"]
    code = f"import sys; from fisherexp.app import main; rc = main({arguments}); sys.exit(rc or 'torch' in sys.modules)"
    again = run_anew("-c", code)
    assert again.returncode == 0, again.stderr
    table = finished.stdout.split("results")[0]
    assert again.stdout.startswith(table)
    assert "found" in again.stdout


def test_rerun_builds_on_the_same_artefacts(done):
    output_dir, _ = done
    artefacts = {f: f.stat().st_mtime_ns for f in output_dir.glob("artefacts/*/*.safetensors")}
    assert len(artefacts) == 6  # two weights, one Fisher, three evaluations: an untrained network's is the third
    again = run(*SMALL, f"output_dir={output_dir}", "rerun=true")
    assert again.returncode == 0
    assert {f: f.stat().st_mtime_ns for f in output_dir.glob("artefacts/*/*.safetensors")} == artefacts


@pytest.mark.end_to_end
def test_reproduce_runs_it_again_and_compares(done):
    output_dir, _ = done
    (folder,) = output_dir.glob("ssd/digits/*")
    shown = run("reproduce", folder.name[:6], "-o", str(output_dir), module=True)
    assert "python run.py model.width=4" in shown.stdout
    again = run("reproduce", folder.name, "-o", str(output_dir), "--run", module=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "every figure is the same" in again.stdout
    assert run("reproduce", "nothing", "-o", str(output_dir), module=True).returncode == 2


@pytest.mark.end_to_end
def test_a_killed_sweep_launched_again_runs_what_is_missing(tmp_path):
    sweep = [
        "-m",
        "method=erm,ssd,finetune,retrain",
        "scenario=class_forgetting",
        "seed=0,1,2",
        *PLAIN,
        f"output_dir={tmp_path}",
    ]
    process = forked.Popen("run.py", *sweep)
    while len(list(tmp_path.glob("*/*/*/run.json"))) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    records = {f: f.read_bytes() for f in tmp_path.glob("*/*/*/run.json")}
    weights = {f: f.stat().st_mtime_ns for f in tmp_path.glob("artefacts/weights/*.safetensors")}
    assert 5 <= len(records) < 12

    finished = run(*sweep)
    assert finished.returncode == 0, finished.stderr
    after = sorted(tmp_path.glob("*/*/*/run.json"))
    assert len(after) == 12
    assert all(file.read_bytes() == content for file, content in records.items())
    assert all(file.stat().st_mtime_ns == when for file, when in weights.items())
    assert len(list(tmp_path.glob("artefacts/weights/*.safetensors"))) == 6  # a source and an oracle for each seed
    assert finished.stdout.count("found ") == len(records)
    assert [line.split()[:2] for line in finished.stdout.splitlines() if line.startswith(" ssd")] == [["ssd", "3"]]

    table = run("table", "--output-dir", str(tmp_path), "--trials", module=True)  # of a checkout in the making
    assert table.returncode == 0
    rows = [line.split() for line in table.stdout.splitlines() if "±" in line and "deviation" not in line]
    assert [row[:2] for row in rows] == [["erm", "3"], ["finetune", "3"], ["retrain", "3"], ["ssd", "3"]]
    status = run("status", "-o", str(tmp_path), module=True)
    assert "12 done" in status.stdout


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    options = ["method=erm", "scenario=none", "training.epochs=2000", "checkpoint_every=0", f"output_dir={tmp_path}"]
    process = forked.Popen("run.py", *options)
    while not list(tmp_path.glob("artefacts/weights/*.partial/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "launch the same line again" in errors
    assert "Traceback" not in errors
    assert "1 interrupted" in run("status", "-o", str(tmp_path), module=True).stdout


def test_a_failed_run_is_one_line_and_keeps_its_traceback(tmp_path):
    arguments = [*PLAIN, f"output_dir={tmp_path}"]
    failed = run("-m", "method=ssd", "scenario=random_forgetting", "scenario.fraction=0.0,0.1", *arguments)
    assert failed.returncode == 1
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("failed:")]
    assert "the scenario would forget no training sample" in line
    assert "Traceback" not in failed.stderr
    (error,) = tmp_path.glob("ssd/digits/*/error.txt")
    assert "Traceback" in error.read_text()
    assert len(list(tmp_path.glob("ssd/digits/*/run.json"))) == 1  # the other run of the sweep was made
    status = run("status", "-o", str(tmp_path), module=True)
    assert "the scenario would forget no training sample" in status.stdout


def test_a_damaged_record_is_named_and_the_rest_is_shown(done, tmp_path):
    output_dir, _ = done
    folder = output_dir / "ssd" / "digits" / "damaged"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "run.json").write_text('{"metrics": {')
    try:
        table = run("table", "--output-dir", str(output_dir), "--trials", module=True)
    finally:
        (folder / "run.json").unlink()
        (folder / "config.yaml").unlink()
        folder.rmdir()
    assert table.returncode == 1
    assert "damaged/run.json cannot be read" in table.stderr
    assert "\n ssd" in table.stdout


LIMITED = ["trainer=debug", "trainer=debug_overfit", "trainer=debug_profiler", "trainer=debug_anomaly"]


@pytest.mark.parametrize("limited", [*LIMITED, "trainer.limit_test_batches=1"])
def test_debug_presets_run_and_are_trials(tmp_path, limited):
    options = [limited, "method=erm", "scenario=none", *PLAIN, f"output_dir={tmp_path}"]
    finished = run(*options)
    assert finished.returncode == 0, finished.stderr
    assert "a trial run" in finished.stdout
    assert "no finished run" in run("table", "--output-dir", str(tmp_path), module=True).stdout


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            ["list"],
            [
                "python run.py method=ssd",
                "test time adaptation",
                "digits",
                "small_cnn",
                "class_forgetting",
                "2308.07707",
            ],
        ),
        pytest.param(["check"], ["0 problems"], marks=pytest.mark.end_to_end),  # hundreds of compositions
        (["check", "ssd", "eata"], ["0 problems"]),
        (["status", "-o", "nowhere"], ["no run in nowhere"]),
        (["table", "--output-dir", "nowhere"], ["no finished run in nowhere"]),
    ],
)
def test_commands_without_runs(command, expected):
    finished = run_anew("-m", "fisherexp", *command) if command == ["list"] else run(*command, module=True)
    assert finished.returncode == 0, finished.stderr
    for words in expected:
        assert words in finished.stdout


def test_help_is_short_to_wait_for_and_lists_the_choices():
    finished = run("--help")
    wings = dict(line.strip().split(": ", 1) for line in finished.stdout.splitlines() if line.startswith("  un"))
    assert {"finetune", "retrain", "ssd"} <= set(wings["unlearning"].split(", "))
    assert "python -m fisherexp list" in finished.stdout
