"""The curve of a run that was stopped and launched again is that of one left alone: each step once, in every logger."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.contract.method import StopAfter, Stopped
from fisherexp.experiment import run_experiment
from fisherexp.runs.wandb_logger import RecordingWandb

BATCHES = 5  # of an epoch
ERM = ["method=erm", "scenario=none", "model=mlp", "training.epochs=4", "data.train_size=320", "threads=1"]
ERM += ["checkpoint_every=0", "progress=off"]


def run(folder: Path, *options: str, stop: int | None = None) -> None:
    """stop: after so many batches, behind the callback that saves the state."""
    config = composed([*ERM, f"output_dir={folder}", *options])
    callbacks = [] if stop is None else [StopAfter(stop)]
    try:
        run_experiment(config, folder / "run", [], callbacks)
        assert stop is None
    except Stopped:
        assert stop is not None


def csv_rows(folder: Path) -> list[dict[str, str]]:
    """Of the training; what comes after it are metrics of the result."""
    with (folder / "run" / "csv" / "metrics.csv").open(newline="") as file:
        return [{"step": row["step"], "loss": row["train/loss"]} for row in csv.DictReader(file) if row["train/loss"]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    rows = csv_rows(folder)
    assert [row["step"] for row in rows] == [str(BATCHES * epoch - 1) for epoch in (1, 2, 3, 4)]
    return rows


@pytest.mark.parametrize("stops", [[BATCHES + 2], [2 * BATCHES], [3, 7, 2]], ids=str)
def test_stopped_anywhere_it_ends_with_every_row_once(tmp_path, undisturbed, stops):
    for batches in stops:
        run(tmp_path, stop=batches)
    run(tmp_path)
    assert csv_rows(tmp_path) == undisturbed


def test_rows_after_the_last_state_come_once(tmp_path, undisturbed):
    """A kill loses the states since the last one, not the rows that were logged since."""
    run(tmp_path, "checkpoint_every=1000", stop=3 * BATCHES + 1)
    assert csv_rows(tmp_path) == undisturbed[:3]
    run(tmp_path)
    assert csv_rows(tmp_path) == undisturbed


def test_asked_to_stop_at_the_end_of_an_epoch_it_has_logged_that_epoch(tmp_path, undisturbed, monkeypatch):
    asked = iter([False] * (2 * BATCHES - 1) + [True])  # asked once a batch or end of an epoch
    monkeypatch.setattr("fisherexp.callbacks.resumable.is_asked", lambda: next(asked, False))
    from fisherexp.stop import Stopped as Asked

    with pytest.raises(Asked):
        run(tmp_path)
    assert csv_rows(tmp_path) == undisturbed[:2]
    run(tmp_path)
    assert csv_rows(tmp_path) == undisturbed


def test_killed_after_its_training_it_tells_the_curve_it_finds(tmp_path, undisturbed):
    run(tmp_path)
    (tmp_path / "run" / "csv" / "metrics.csv").unlink()
    run(tmp_path)
    assert csv_rows(tmp_path) == undisturbed


def test_event_files_hold_every_row_once(tmp_path, undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stop in (BATCHES + 2, None):
        run(tmp_path, "logger=tensorboard", stop=stop)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/loss")
    expected = [(int(row["step"]), torch.tensor(float(row["loss"])).item()) for row in undisturbed]
    assert [(event.step, event.value) for event in events] == expected


def wandb_rows(file: Path) -> list[tuple[int, float]]:
    """By wandb's own reader."""
    reader = Path(sys.executable).with_name("wandb")
    done = subprocess.run([reader, "leet", "inspect", "--json", file], capture_output=True, text=True)
    if done.returncode and "No such command" in done.stderr:
        pytest.skip("this wandb has no reader for offline runs (leet inspect)")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [record["history"]["item"] for record in records if "history" in record]
    return [(row["trainer/global_step"], row["train/loss"]) for row in rows if "train/loss" in row]


def test_offline_runs_of_wandb_are_one_folder_with_every_row_once(tmp_path, undisturbed):
    for stop in (BATCHES + 2, None):
        run(tmp_path, "logger=wandb", stop=stop)
    (file,) = tmp_path.rglob("*.wandb")
    assert wandb_rows(file) == [(int(row["step"]), float(row["loss"])) for row in undisturbed]


def test_mlflow_shows_every_row_once(tmp_path, undisturbed):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    for stop in (BATCHES + 2, None):
        run(tmp_path, "logger=mlflow", stop=stop)
    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (shown,) = client.search_runs([client.get_experiment_by_name("fisherexp").experiment_id])
    assert shown.info.status == "FINISHED"
    history = client.get_metric_history(shown.info.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(int(r["step"]), float(r["loss"])) for r in undisturbed]


class Server:
    """Stands for a wandb run that goes on: the server counts `starting_step` rows of it."""

    def __init__(self, starting_step: int) -> None:
        self.starting_step, self.logged = starting_step, []

    def log(self, row) -> None:
        self.logged.append(row)


@pytest.mark.parametrize("known", [0, 2, 3])
def test_rows_that_the_server_of_wandb_has_are_not_sent_again(known):
    server = Server(known)
    logger = RecordingWandb(False, experiment=server)
    for step in range(3):
        logger.log_metrics({"loss": float(step)}, step)
    logger.log_metrics({"after/accuracy": 1.0})  # of the finished run: without a step
    sent = [{"loss": float(step), "trainer/global_step": step} for step in range(known, 3)]
    assert server.logged == [*sent, {"after/accuracy": 1.0}]
