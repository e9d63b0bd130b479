"""Offline wandb runs of one process are two runs, each with its config and its figures, read by wandb's own reader."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def inspect(file: Path) -> dict:
    reader = Path(sys.executable).with_name("wandb")
    done = subprocess.run([reader, "leet", "inspect", "--summary", "--json", file], capture_output=True, text=True)
    if done.returncode and "No such command" in done.stderr:
        pytest.skip("this wandb has no reader for offline runs (leet inspect)")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_offline_runs_in_one_process(tmp_path):
    options = ["method=finetune", "seed=0,1", "model.width=4", "training.epochs=1", "logger=wandb"]
    command = [sys.executable, "run.py", "-m", *options, f"output_dir={tmp_path}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text()) for file in tmp_path.glob("finetune/digits/*/run.json")]
    assert len(records) == 2
    for record in records:
        (file,) = (tmp_path / "finetune" / "digits" / record["identity"]).rglob("*.wandb")
        seen = inspect(file)
        assert seen["config"]["seed"] == record["seed"]
        for name, value in record["metrics"]["after"].items():
            assert seen["summary"][f"after/{name}"] == pytest.approx(value)
