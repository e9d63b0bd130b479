"""Offline wandb runs of one process are two, each with its config, figures and record, read by wandb's own reader."""

import json
import subprocess
import sys
from pathlib import Path

import forked
import pytest

pytestmark = pytest.mark.end_to_end  # wandb's own process, and its reader


def inspect(file: Path, *options: str) -> str:
    reader = Path(sys.executable).with_name("wandb")
    done = subprocess.run([reader, "leet", "inspect", *options, "--json", file], capture_output=True, text=True)
    if done.returncode and "No such command" in done.stderr:
        pytest.skip("this wandb has no reader for offline runs (leet inspect)")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder of two runs that differ in their seed, made in one process, and what that printed."""
    folder = tmp_path_factory.mktemp("wandb")
    options = ["method=fisher", "seed=0,1", "model.width=4", "training.epochs=2", "logger=wandb"]
    options += ["logger.wandb.artefacts=true", "callbacks=[gradient_norms]"]
    done = forked.run("run.py", "-m", *options, f"output_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(launched):
    """(record, file) of each."""
    folder, _ = launched
    records = [json.loads(file.read_text()) for file in folder.glob("fisher/digits/*/run.json")]
    found = []
    for record in sorted(records, key=lambda record: record["seed"]):
        (file,) = (folder / "fisher" / "digits" / record["identity"]).rglob("*.wandb")
        found.append((record, file))
    assert len(found) == 2
    return found


def test_of_wandb_one_line_a_run_is_seen(launched, runs):
    lines = [line for line in launched[1].splitlines() if "wandb" in line and "done" not in line]
    assert [line.split("wandb sync ")[0] for line in lines if "HYDRA" not in line] == ["wandb    "] * 2
    assert all(str(file.parent) in launched[1] for _, file in runs)


def test_config_and_every_metric(runs):
    for record, file in runs:
        seen = json.loads(inspect(file, "--summary"))
        assert seen["config"]["seed"] == record["seed"]
        assert seen["config"]["method"]["importance"] == record["config"]["method"]["importance"]
        for stage, metrics in record["metrics"].items():
            for name, value in metrics.items():
                assert seen["summary"][f"{stage}/{name}"] == pytest.approx(value), name


def test_record_and_pictures(runs):
    for record, file in runs:
        text = inspect(file)
        assert record["identity"] in text
        assert record["data_checksum"] in text
        assert "record/metrics" in text
        assert "figures/fisher" in text
        assert "fisher-" in text  # the artefact
        assert "weights-" in text
        folder = file.parent / "files" / "media"
        assert [image.name.startswith("fisher") for image in folder.rglob("*.png")] == [True]


def test_seeds_share_a_group_and_nothing_else(runs):
    (first, _), (second, _) = runs
    texts = [inspect(file) for _, file in runs]
    groups = {
        line["run"]["run_group"] for text in texts for line in map(json.loads, text.splitlines()) if "run" in line
    }
    assert len(groups) == 1
    assert groups.pop().startswith("fisher-digits-")
    assert first["identity"] in texts[0]
    assert second["identity"] not in texts[0]
