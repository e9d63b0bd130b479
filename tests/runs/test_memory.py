"""Whether memory is kept is seen in the pages that the system has to give a process again."""

import gc
import os
import subprocess
import sys
import weakref

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment
from fisherexp.runs import memory
from fisherexp.runs.memory import DECIDED, keep_freed_memory
from fisherexp.runs.workbench import Workbench

FAULTS_OF_THE_SECOND_USE = """
import ctypes, resource, sys
from fisherexp.runs.memory import keep_freed_memory

libc, size = ctypes.CDLL(None), 48 * 2**20  # more than malloc ever keeps by itself
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
assert sys.argv[1] == "left" or keep_freed_memory()
faults = []
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("malloc", "least", "most"), [("kept", 0, 8), ("left", 20, 48 * 256)])
def test_freed_memory_is_used_again(malloc, least, most):
    """Left alone, every page is given anew: 12288 of 4 kB, or 24 large ones."""
    clean = {name: value for name, value in os.environ.items() if name not in DECIDED}
    command = [sys.executable, "-c", FAULTS_OF_THE_SECOND_USE, malloc]
    faults = int(subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout)
    assert least <= faults <= most + 8


PEAK_OF_THE_SECOND_RUN = """
import sys, torch
from fisherexp.runs.memory import begin_peak, keep_freed_memory, peak_memory

assert keep_freed_memory()
begin_peak()
torch.ones(50 * 2**20)  # 200 MiB, freed
first = peak_memory(True)["memory_mib"]
if sys.argv[1] == "begun":
    assert begin_peak()
torch.ones(2**20)
print(first - peak_memory(True)["memory_mib"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot forget its peak")
@pytest.mark.parametrize(("way", "least", "most"), [("begun", 180, 220), ("not begun", -5, 0)])
def test_a_runs_peak_is_its_own(way, least, most):
    """Not that of a run which the same process made before."""
    command = [sys.executable, "-c", PEAK_OF_THE_SECOND_RUN, way]
    less = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert least <= less <= most


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot forget its peak")
def test_an_experiments_record_holds_its_own_peak(tmp_path):
    torch.ones(250 * 2**20)  # 1,000 MiB, freed
    earlier = memory.peak_memory(True)["memory_mib"]
    sizes = ["model.width=4", "training.epochs=1", "data.train_size=60", "progress=off", f"output_dir={tmp_path}"]
    record = run_experiment(composed(["method=erm", "callbacks=[]", *sizes]), tmp_path, [])
    assert 0 < record["memory"]["memory_mib"] < earlier - 500


def test_a_process_that_cannot_forget_its_peak_says_that_it_is_of_all_its_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "missing" / "clear_refs")
    assert not memory.begin_peak()
    assert memory.peak_memory(False).keys() - {"gpu_memory_mib"} == {"process_memory_mib"}


@pytest.mark.parametrize("name", DECIDED)
def test_what_the_environment_decides_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not keep_freed_memory()


@pytest.mark.parametrize("large", [True, False])
def test_a_large_models_loop_begins_without_what_earlier_loops_held(large, tmp_path, monkeypatch):
    """Of a small one, for which a collection would take longer than it is worth, Python decides."""
    monkeypatch.setattr(memory, "LARGE", 0 if large else 2**40)
    trainers, init = [], Trainer.__init__

    def noted(trainer, *args, **options):
        assert not (large and any(earlier() for earlier in trainers))
        init(trainer, *args, **options)
        trainers.append(weakref.ref(trainer))

    monkeypatch.setattr(Trainer, "__init__", noted)
    sizes = ["model.width=4", "training.epochs=1", "data.train_size=60", "progress=off", f"output_dir={tmp_path}"]
    bench = Workbench(composed(["method=erm", "callbacks=[]", *sizes]))
    gc.disable()
    try:
        for number in range(3):
            bench.fit(bench.method("method"), tmp_path / str(number), "fit")
        assert sum(trainer() is not None for trainer in trainers) == (1 if large else 3)
    finally:
        gc.enable()


def test_a_model_is_as_large_as_its_weights(monkeypatch):
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    memory.free_ended_loops(nn.Linear(100, 10))
    assert not collected
    monkeypatch.setattr(memory, "LARGE", 4 * 1010)
    memory.free_ended_loops(nn.Linear(100, 10))
    assert collected
