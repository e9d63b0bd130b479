"""Whether memory is kept is seen in the pages that the system has to give a process again."""

import os
import subprocess
import sys

import pytest

from fisherexp.runs import memory
from fisherexp.runs.memory import DECIDED, keep_freed_memory

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


@pytest.mark.parametrize("name", DECIDED)
def test_what_the_environment_decides_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not keep_freed_memory()
