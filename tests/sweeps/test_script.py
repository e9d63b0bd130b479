"""The sbatch script, without a cluster."""

import shlex
import subprocess

import pytest

from fisherexp.config.explain import composed
from fisherexp.config.problem import ConfigError
from fisherexp.sweeps.queue import QueueUnknown, Submitted, submitted
from fisherexp.sweeps.slurm import Options, launch, script, shape


def test_shape_follows_the_trainer():
    cpu = shape(composed(["trainer=cpu"]), Options())
    assert (cpu.nodes, cpu.processes, cpu.gpus) == (1, 1, 0)
    ddp = shape(composed(["trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"]), Options())
    assert (ddp.nodes, ddp.processes, ddp.gpus) == (2, 4, 4)
    assert shape(composed(["trainer=gpu"]), Options(gpus_per_node=0)).gpus == 0


def test_script_asks_for_what_the_options_say_and_runs_its_line(tmp_path):
    needed = shape(composed(["trainer=ddp", "trainer.devices=4"]), Options())
    options = Options(partition="gpu", time=30, array_parallelism=4, setup=["echo ready"], sbatch={"exclude": "n7"})
    text = script("name", tmp_path, 8, needed, options)
    for line in (
        "--array=0-7%4",
        "--partition=gpu",
        "--time=30",
        "--gpus-per-node=4",
        "--ntasks-per-node=4",
        "--signal=USR1@90",
        "--exclude=n7",
        "--requeue",
    ):
        assert f"#SBATCH {line}\n" in text
    assert "account" not in text
    assert "MASTER_ADDR=127.0.0.1" in text

    # What bash makes of it: the task's own line of runs.txt, with blanks and all.
    (tmp_path / "runs.txt").write_text("/first\n/second one\n")
    stub = text.replace("\nsrun ", "\nprintf '<%s>' ")
    done = subprocess.run(["bash", "-c", stub], env={"SLURM_ARRAY_TASK_ID": "1"}, capture_output=True, text=True)
    assert done.stdout.startswith("ready\n")
    assert done.stdout.endswith("<job></second one>")


@pytest.mark.parametrize("name", ["plain", "my work", "it's", 'a "b" c', "wörk #1", "50%a", "back\\slash"])
def test_every_line_of_options_is_one_word(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    options = Options(sbatch={"comment": "two words"})
    text = script("name", tmp_path / name, 2, shape(composed([]), Options()), options)
    words = [shlex.split(line.removeprefix("#SBATCH ")) for line in text.splitlines() if line.startswith("#SBATCH")]
    assert all(len(line) == 1 for line in words)
    given = dict(word.removeprefix("--").split("=", 1) for (word,) in words if "=" in word)
    assert given["chdir"] == str(tmp_path / name)
    assert given["output"].replace("%%", "%") == f"{tmp_path / name}/%a.log"
    assert given["comment"] == "two words"


def test_a_machine_without_slurm_says_so_and_submits_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    cfg = composed([f"output_dir={tmp_path}"])
    with pytest.raises(ConfigError, match="there is no sbatch on this machine"):
        launch([(cfg, [])], Options())
    assert not list(tmp_path.glob(".sweep/slurm/*/runs.txt"))
    with pytest.raises(ConfigError, match="wants a number of processes"):
        launch([(composed([f"output_dir={tmp_path}", "trainer.devices=auto"]), [])], Options())


def test_a_log_ends_with_slurms_reason_where_there_is_one(tmp_path):
    log = tmp_path / "0.log"
    assert Submitted(log).last_line() == ""
    log.write_text("1 thread\ntraining erm\n")
    assert Submitted(log).last_line() == "training erm"
    log.write_text("slurmstepd: error: *** JOB 1 ON n1 CANCELLED DUE TO TIME LIMIT ***\nsrun: terminated\n")
    assert "TIME LIMIT" in Submitted(log).last_line()


def test_a_silent_queue_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert submitted(tmp_path) == {}  # nothing was ever submitted: nobody is asked
    runs = tmp_path / ".sweep" / "slurm" / "name" / "runs.txt"
    runs.parent.mkdir(parents=True)
    runs.write_text("/a\n")
    with pytest.raises(QueueUnknown, match="no squeue"):
        submitted(tmp_path)
    (tmp_path / "squeue").write_text("#!/bin/sh\necho cannot contact controller >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    with pytest.raises(QueueUnknown, match="cannot contact controller"):
        submitted(tmp_path)
