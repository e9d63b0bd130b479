"""A run that is killed and launched again ends with the weights of one that was left alone, bit for bit."""

import os
import signal
import time
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file

from fisherexp.config.explain import composed
from fisherexp.contract.method import StopAfter, Stopped
from fisherexp.experiment import run_experiment

ERM = [
    "method=erm",
    "scenario=none",
    "model.width=8",
    "training.epochs=25",
    "checkpoint_every=0",
    "threads=1",
]


def launch(output_dir: Path) -> forked.Popen:
    return forked.Popen("run.py", *ERM, f"output_dir={output_dir}")


def final_weights(output_dir: Path) -> dict[str, torch.Tensor]:
    (file,) = output_dir.glob("erm/digits/*/weights.safetensors")
    return load_file(file)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, torch.Tensor]:
    output_dir = tmp_path_factory.mktemp("undisturbed")
    process = launch(output_dir)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return final_weights(output_dir)


@pytest.mark.end_to_end
# At some step of the training, mid-epoch as a rule; the second kill hits a run that was itself resumed.
@pytest.mark.parametrize("kills", [2])
def test_killed_and_launched_again_is_bit_equal(tmp_path, undisturbed, kills):
    for _ in range(kills):
        process = launch(tmp_path)
        first = wait_for_checkpoint(tmp_path, process)
        while process.poll() is None and newest(tmp_path) <= first + 0.2:  # some progress beyond the first state
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not list(tmp_path.glob("erm/*/*/run.json"))
    process = launch(tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    resumed = final_weights(tmp_path)
    assert resumed.keys() == undisturbed.keys()
    for name, tensor in undisturbed.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.parametrize("summed", [1, 4])
@pytest.mark.parametrize("batches", [2, 4, 9])
def test_gradients_that_wait_for_further_batches_are_not_lost(tmp_path, summed, batches):
    """Six batches are steps of four and of two; a kill comes in the midst of one, behind it, or an epoch on."""
    small = ["data.train_size=96", "data.batch_size=16", "training.epochs=2"]
    small += [f"trainer.accumulate_grad_batches={summed}"]

    def run(name, *callbacks):
        cfg = composed([*ERM, *small, "progress=off", f"output_dir={tmp_path / name}"])
        run_experiment(cfg, tmp_path / name / "run", [], callbacks)
        return load_file(tmp_path / name / "run" / "weights.safetensors")

    with pytest.raises(Stopped):
        run("killed", StopAfter(batches))
    killed, whole = run("killed"), run("whole")
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


def newest(output_dir: Path) -> float:
    files = [f.stat().st_mtime for f in output_dir.glob("artefacts/weights/*.partial/last.ckpt")]
    return max(files, default=0.0)


def wait_for_checkpoint(output_dir: Path, process: forked.Popen) -> float:
    before = newest(output_dir)
    while newest(output_dir) == before:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return newest(output_dir)
