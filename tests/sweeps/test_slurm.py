"""Sweeps on a real SLURM (two virtual nodes on this machine): submitted, found, preempted, lost, launched again."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch
from forked import REPOSITORY
from safetensors.torch import load_file

pytestmark = [pytest.mark.slurm, pytest.mark.end_to_end]

ERM = ["method=erm", "model.width=4", "training.epochs=1", "threads=1"]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.mem=500M", "hydra.launcher.cpus_per_task=1"]


def run(*arguments: str, module: bool = False, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    return forked.run(*(["-m", "fisherexp"] if module else [REPOSITORY / "run.py"]), *arguments, cwd=cwd)


def submit(output_dir: Path, *arguments: str) -> str:
    launched = run("-m", *SLURM, f"output_dir={output_dir}", *arguments)
    assert launched.returncode == 0, launched.stderr
    return launched.stdout


def status(output_dir: Path) -> str:
    return run("status", "-o", str(output_dir), module=True).stdout


def queue() -> str:
    return subprocess.run(["squeue", "-h", "-r", "-o", "%i %T %N"], capture_output=True, text=True).stdout


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain; the queue: {queue()}"
        time.sleep(0.1)


def test_only_what_is_missing_is_submitted(slurm_cluster, tmp_path):
    sweep = [*ERM, "scenario=random_forgetting", "scenario.fraction=0.1,0.0"]  # nothing to forget: the second run fails
    assert "2 submitted" in submit(tmp_path, *sweep)
    assert "2 queued or running already" in submit(tmp_path, *sweep)
    wait_until(lambda: not queue())
    seen = status(tmp_path)
    assert "1 done" in seen
    assert "1 failed" in seen
    (failed,) = [line for line in seen.splitlines() if line.startswith("failed")]
    assert "would forget no training sample" in failed
    assert "Traceback" not in Path(re.search(r"\((\S+\.log)\)", failed)[1]).read_text()

    # A job that is cancelled is not put back, and not mistaken for one that is on its way.
    launched = submit(tmp_path, *sweep)
    assert launched.count("found ") == 1
    assert "\n1 submitted" in launched
    subprocess.run(["scancel", re.search(r"job array (\d+)", launched)[1]], check=True)
    wait_until(lambda: not queue())
    (lost,) = [line for line in status(tmp_path).splitlines() if line.startswith("lost")]
    assert lost.endswith("/0.log)")


def test_a_preempted_job_ends_with_the_weights_of_an_undisturbed_one(slurm_cluster, tmp_path):
    long = ["method=erm", "scenario=none", "model.width=8", "training.epochs=25", "checkpoint_every=1000", "threads=1"]
    submit(tmp_path / "preempted", *long)
    wait_until(lambda: bool(list(tmp_path.glob("preempted/erm/*/*/progress.json"))))
    job, _, node = queue().split()

    # The daemon of its node dies and comes back: the job does not notice.
    pid_file = slurm_cluster / "run" / f"slurmd.{node}.pid"
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    subprocess.run(["slurmd", "-N", node], env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin"}, check=True)

    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    wait_until(lambda: "PENDING" in queue())
    assert list(tmp_path.glob("preempted/artefacts/weights/*.partial/last.ckpt"))
    # SLURM lets a requeued job wait for two minutes, and revokes what starts in the second of its requeue.
    time.sleep(3)
    subprocess.run(["scontrol", "update", f"JobId={job.partition('_')[0]}", "StartTime=now"], check=True)
    assert run(*long, f"output_dir={tmp_path / 'undisturbed'}").returncode == 0
    wait_until(lambda: bool(list(tmp_path.glob("preempted/erm/*/*/run.json"))))

    (log,) = tmp_path.glob("preempted/.sweep/slurm/*/0.log")
    assert "back into the queue" in log.read_text()
    preempted, undisturbed = (
        load_file(next(tmp_path.glob(f"{name}/erm/*/*/weights.safetensors"))) for name in ("preempted", "undisturbed")
    )
    assert preempted.keys() == undisturbed.keys()
    assert all(torch.equal(preempted[name], tensor) for name, tensor in undisturbed.items())


def test_two_tasks_make_one_run(slurm_cluster, tmp_path):
    submit(tmp_path, *ERM, "scenario=none", "trainer=ddp", "trainer.accelerator=cpu")
    wait_until(lambda: not queue())
    (log,) = tmp_path.glob(".sweep/slurm/*/0.log")
    (record,) = tmp_path.glob("erm/*/*/run.json")
    assert log.read_text().count("done ") == 1
    assert json.loads(record.read_text())["costs"]["training erm"]["forward_samples"] == 600  # half of them each


def test_a_folder_with_spaces_quotes_and_other_letters(slurm_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    home = tmp_path / 'it\'s my #1 wörk, 50%a "日本"'
    home.mkdir()
    launched = run("-m", *SLURM, *ERM, "scenario=none", "output_dir=out puts", cwd=home)
    assert "1 submitted" in launched.stdout, launched.stderr
    wait_until(lambda: not queue())
    (record,) = home.glob("out puts/erm/*/*/run.json")
    assert json.loads(record.read_text())["directory"] == str(home)
    (log,) = home.glob("out puts/.sweep/slurm/*/0.log")
    assert "done " in log.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [home.name]
    assert run("-m", *SLURM, *ERM, "scenario=none", "output_dir=out puts", cwd=home).stdout.count("found ") == 1


def test_the_waiting_launcher_sums_up(slurm_cluster, tmp_path):
    options = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", "hydra.launcher.mem_gb=1"]
    sweep = ["-m", *options, *ERM, "scenario=none", "seed=0,1", f"output_dir={tmp_path}"]
    launched = run(*sweep)
    assert launched.returncode == 0, launched.stderr
    assert "mean ± standard deviation" in launched.stdout  # the table
    assert len(list(tmp_path.glob("erm/*/*/run.json"))) == 2
