"""Sweeps on one machine: killed, launched twice at once, out of disk space, failing, with runs of two processes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import forked
import pytest

ERM = ["method=erm", "scenario=none", "model.width=4", "training.epochs=1", "threads=1", "progress=off"]

# Several command lines in one process; prints "STATUS <exit status>" after each.
COMMANDS = """
import json, os, sys
from fisherexp.app import main
for arguments in json.loads(sys.argv[1]):
    if arguments[0] == "rm":
        os.unlink(arguments[1])
    else:
        print("STATUS", main(arguments), flush=True)
"""


def commands(*lines: list[str]) -> tuple[list[int], str, str]:
    """(exit status of each line, standard output, standard error) of command lines run one after the other."""
    done = forked.run("-c", COMMANDS, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    return [int(line.split()[1]) for line in printed if line.startswith("STATUS ")], done.stdout, done.stderr


def results(output_dir: Path) -> dict[str, dict]:
    """Identity -> metrics of every finished run, time apart. Raises for a torn file."""
    records = [json.loads(file.read_text()) for file in output_dir.glob("*/*/*/run.json")]
    found = {}
    for record in records:
        stages = record["metrics"].items()
        found[record["identity"]] = {
            s: {name: v for name, v in metrics.items() if name != "seconds"} for s, metrics in stages
        }
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, dict]:
    output_dir = tmp_path_factory.mktemp("undisturbed")
    (status,), _, errors = commands(["-m", *ERM, "seed=0,1,2,3", f"output_dir={output_dir}"])
    assert status == 0, errors
    assert len(results(output_dir)) == 4
    return results(output_dir)


@pytest.mark.end_to_end
def test_killed_and_launched_twice_at_once_each_run_is_made_once(tmp_path, undisturbed):
    sweep = ["run.py", "-m", *ERM, "seed=0,1,2,3", f"output_dir={tmp_path / 'outputs'}"]
    logs = [tmp_path / name for name in ("killed", "first", "second")]

    def launch(log: Path, *more: str) -> forked.Popen:
        with log.open("w") as file:
            return forked.Popen(*sweep, *more, stdout=file, stderr=file)

    killed = launch(logs[0], "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    wait_until(lambda: bool(list(tmp_path.glob("outputs/erm/*/*/overrides.json"))))
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    # Its workers finish the runs at hand, while the same sweep is launched twice.
    both = [launch(log) for log in logs[1:]]
    assert [process.wait() for process in both] == [0, 0], [log.read_text() for log in logs]

    def made() -> list[str]:
        return [line.split()[1] for log in logs for line in log.read_text().splitlines() if line.startswith("done  ")]

    wait_until(lambda: len(made()) >= 4)  # a worker's line follows its record
    assert results(tmp_path / "outputs") == undisturbed
    assert len(made()) == len(set(made())) == 4


def test_a_full_disk_fails_in_one_line_and_loses_nothing(tmp_path, undisturbed):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk to fill: {mounted.stderr.strip()}")
    try:
        sweep = ["-m", *ERM, "seed=0,1,2,3", f"output_dir={disk}"]
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            file.write(b"\0" * (4 * 2**20 - 48 * 2**10))  # room for the first files of the first run
        statuses, printed, errors = commands(sweep, ["rm", str(ballast)], sweep)
        assert statuses == [1, 0], errors
        assert "No space left on device" in errors
        assert printed.partition("STATUS 1")[0].count("done  ") < 4
        assert results(disk) == undisturbed
        assert not list(disk.rglob(".*.json.*"))  # no litter of half-written files
    finally:
        subprocess.run(["umount", disk], check=True)


def test_failures_are_summed_up_and_may_stop_the_sweep(tmp_path):
    sweep = [*ERM, "scenario=random_forgetting", "scenario.fraction=0.0,0.1"]  # nothing to forget: the first run fails
    stopped = ["-m", *sweep, "on_error=stop", f"output_dir={tmp_path / 'stop'}"]
    continued = ["-m", *sweep, f"output_dir={tmp_path / 'continue'}"]
    statuses, _, errors = commands(stopped, continued)
    assert statuses == [1, 1]
    assert not results(tmp_path / "stop")
    assert len(results(tmp_path / "continue")) == 1
    assert "1 failed, 1 skipped" in errors
    assert "1 done, 1 failed" in errors
    assert "not started: an earlier run failed (on_error=stop)" in errors
    assert len(list(tmp_path.glob("*/erm/*/*/error.txt"))) == 2


@pytest.mark.end_to_end
def test_runs_of_two_processes_start_once_each(tmp_path):
    options = ["trainer=ddp", "trainer.accelerator=cpu", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = forked.run("run.py", "-m", *ERM, *options, "seed=0,1", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done  ") == 2
    for file in tmp_path.glob("erm/*/*/run.json"):
        assert json.loads(file.read_text())["costs"]["training erm"]["forward_samples"] == 600  # half of them each
    assert len(results(tmp_path)) == 2


def test_a_search_goes_on_where_it_was_and_touches_the_test_set_once(tmp_path):
    line = ["-m", "hydra/sweeper=optuna", *ERM, "training.lr=tag(log,interval(1e-3,0.3))", "data.validation=0.2"]
    line += [f"output_dir={tmp_path}", "hydra.sweeper.pruner=none"]
    statuses, printed, errors = commands([*line, "hydra.sweeper.n_trials=1"], [*line, "hydra.sweeper.n_trials=2"])
    assert statuses == [0, 0], errors
    assert printed.count("trial 1/") == printed.count("trial 2/") == 1
    records = [json.loads(file.read_text()) for file in tmp_path.glob("erm/*/*/run.json")]
    trials = [record for record in records if record["trial"]]
    assert len(trials) == 2
    assert all(record["config"]["evaluate_on"] == "validation" for record in trials)
    best = max(trials, key=lambda record: record["metrics"]["after"]["test_accuracy"])
    chosen = [record for record in records if record.get("search", {}).get("trials") == {"complete": 2}]
    assert [record["config"]["training"]["lr"] for record in chosen] == [best["config"]["training"]["lr"]]
    assert chosen[0]["search"]["value"] == best["metrics"]["after"]["test_accuracy"]


def wait_until(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
