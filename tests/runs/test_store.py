"""Artefacts: built once, shared, never torn."""

import os
import signal
import time

import forked
import pytest
import torch
from safetensors.torch import save_file

from fisherexp.runs.store import ArtefactStore

BUILD = """
import os, sys, time
from pathlib import Path
import torch
from fisherexp.runs.store import ArtefactStore

def build(scratch):
    with open(sys.argv[2], "a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(float(sys.argv[3]))
    return {"x": torch.arange(5.0)}, {"note": "hello"}

artefact = ArtefactStore(Path(sys.argv[1])).get("kind", {"a": 1}, build)
assert torch.equal(artefact.tensors["x"], torch.arange(5.0))
"""


def builder(root, log, seconds: float) -> forked.Popen:
    return forked.Popen("-c", BUILD, root, log, seconds)


@pytest.fixture
def store(tmp_path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "store")


def test_built_once_then_found(store):
    calls = []

    def build(scratch):
        calls.append(scratch)
        return {"x": torch.ones(3)}, {"metrics": {"accuracy": 1.5}}

    built, found = store.get("weights", {"a": 1}, build), store.get("weights", {"a": 1}, build)
    assert (built.built, found.built, len(calls)) == (True, False, 1)
    assert torch.equal(found.tensors["x"], torch.ones(3))
    assert found.about["metrics"] == {"accuracy": 1.5}
    assert found.about["seconds"] >= 0
    assert found.about["parts"] == {"a": 1}
    assert store.get("weights", {"a": 2}, build).built
    assert store.get("fisher", {"a": 1}, build).built


def test_two_processes_at_once_build_one_artefact(tmp_path):
    log = tmp_path / "log"
    processes = [builder(tmp_path / "store", log, 1.0) for _ in range(2)]
    assert [p.wait(timeout=60) for p in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_builder_makes_way_and_its_scratch_is_kept_for_the_next(tmp_path, store):
    log = tmp_path / "log"
    first = builder(store.root, log, 60.0)
    while not log.exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    (scratch,) = store.root.glob("kind/*.partial")
    (scratch / "state").write_text("half")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    seen = []

    def build(folder):
        seen.append((folder / "state").read_text())
        return {"x": torch.arange(5.0)}, {}

    begun = time.perf_counter()
    assert store.get("kind", {"a": 1}, build).built
    assert seen == ["half"]
    assert time.perf_counter() - begun < 30
    assert not list(store.root.glob("kind/*.partial"))


def test_a_damaged_file_is_named_and_built_again(store, capsys):
    def build(scratch):
        return {"x": torch.ones(3)}, {}

    path = store.get("weights", {}, build).path
    path.write_bytes(path.read_bytes()[:20])
    assert store.get("weights", {}, build).built
    assert str(path) in capsys.readouterr().out
    assert not store.get("weights", {}, build).built


def test_one_flipped_bit_anywhere_is_found(store, capsys):
    tensors = {"x": torch.linspace(0, 1, 7), "steps": torch.tensor(3), "on": torch.tensor([True, False])}

    def build(scratch):
        return tensors, {"metrics": {"accuracy": 99.25}}

    path = store.get("weights", {}, build).path
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        found = store._read(path, "key")
        if found is not None:  # white space between the parts of the header
            assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items()), position
            assert found.about["metrics"] == {"accuracy": 99.25}
    told = capsys.readouterr().out.splitlines()
    assert len(told) > 0.9 * len(whole)
    assert all(line.startswith(f"{path} is damaged (") and line.endswith("building it again") for line in told)


def test_an_artefact_of_before_there_were_checksums_is_taken(store):
    """And the control: in such a file a flipped bit is another weight."""
    path = store.get("weights", {}, lambda scratch: ({"x": torch.ones(3)}, {})).path
    save_file({"x": torch.ones(3)}, path, metadata={"about": '{"seconds": 1.0}'})
    assert torch.equal(store._read(path, "key").tensors["x"], torch.ones(3))
    path.write_bytes(path.read_bytes()[:-1] + b"\x3e")
    assert not torch.equal(store._read(path, "key").tensors["x"], torch.ones(3))


def test_a_failing_builder_leaves_nothing_that_looks_finished(store):
    def fail(scratch):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.get("weights", {}, fail)
    assert store.get("weights", {}, lambda scratch: ({"x": torch.ones(1)}, {})).built


def test_tied_tensors_are_kept(store):
    tied = torch.ones(4)
    tensors = store.get("weights", {}, lambda scratch: ({"a": tied, "b": tied}, {})).tensors
    assert torch.equal(tensors["a"], tensors["b"])
    assert set(store.get("weights", {}, lambda scratch: ({}, {})).tensors) == {"a", "b"}
