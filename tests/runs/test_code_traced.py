"""The import closure against what really runs: no function of a run may be missing in the code behind it.

The oracle knows nothing of imports: Python reports every call while a run is made. The run's own hash is to cover all
of them, and an artefact's key those that building it took.
"""

import inspect
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fisherexp.config.explain import composed
from fisherexp.contract.method import shrunk
from fisherexp.experiment import run_experiment
from fisherexp.runs import code
from fisherexp.runs.closure import Closure, closure
from fisherexp.runs.identity import semantic
from fisherexp.runs.module_files import is_ours
from fisherexp.runs.modules import Statement
from fisherexp.runs.store import ArtefactStore

Calls = set[tuple[str, str]]  # module, qualified name of a function in it


@contextmanager
def traced() -> Iterator[Calls]:
    """Collects the calls of functions of the project."""
    calls: Calls = set()

    def called(frame, event, argument):
        module = frame.f_globals.get("__name__", "")
        code = frame.f_code
        if not module.startswith("fisherexp") or not code.co_flags & inspect.CO_NEWLOCALS:
            return  # the body of a module or class
        if code.co_qualname.startswith("<"):
            return  # in a statement of a module
        generated = code.co_filename == "<string>"  # by dataclasses
        by_store = frame.f_back.f_globals["__name__"] == ArtefactStore.__module__ and code.co_name == "agreed"
        if not (generated or by_store):
            calls.add((module, code.co_qualname))

    before = sys.gettrace()
    sys.settrace(called)
    threading.settrace(called)
    try:
        yield calls
    finally:
        sys.settrace(before)
        threading.settrace(before)


def missing(calls: Calls, found: Closure) -> list[str]:
    """Calls of functions that can change a number and are not in a closure."""
    return sorted(f"{module}.{name}" for module, name in calls if code.counts(module) and not has(found, module, name))


def has(found: Closure, module: str, name: str) -> bool:
    """Is the definition in it, whole, or at least this member of a class?"""
    if module not in found.modules:
        return False
    top, _, rest = name.partition(".")
    definitions = [d for d in found.modules[module].bindings.get(top, ()) if isinstance(d, Statement)]
    member = rest.partition(".")[0]
    member = "" if member == "__init__" else member  # what makes an instance belongs to every member
    said = [*definitions, *(d.members[member] for d in definitions if member in d.members)]
    return any(statement.mentions.shape in found.shapes[module] for statement in said)


def uncovered(overrides: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What runs and is not covered: by the run's hash, under 'run', and by the key of each kind of artefact."""
    lacking: dict[str, list[str]] = {}
    described: dict[str, str] = {}  # key of an artefact -> what it depends on
    plain_get = ArtefactStore.get

    def everything(parts) -> str:
        """What an artefact depends on, that of the artefacts it builds on included."""
        text = json.dumps(parts)
        return text + "".join(described[key] for key in described if key in text)

    def get(store, kind, parts, build):
        def traced_build(scratch):
            with traced() as calls:
                made = build(scratch)
            text = everything(parts)
            covering = [found for found, _, hashed in code._known.values() if hashed in text]
            lacking.setdefault(kind, []).extend(set.intersection(*(set(missing(calls, found)) for found in covering)))
            return made

        artefact = plain_get(store, kind, parts, traced_build)
        described[artefact.key] = everything(parts)
        return artefact

    overrides = [*overrides, "progress=off"]
    cfg = composed([*shrunk(composed(overrides)), *overrides, f"output_dir={folder}"])
    with monkeypatch.context() as patch, traced() as calls:
        patch.setattr(ArtefactStore, "get", get)
        run_experiment(cfg, folder / "run", overrides)
    behind = closure([code.RUNNER, *code.targets(semantic(cfg))], code.counts)
    return {kind: names for kind, names in (lacking | {"run": missing(calls, behind)}).items() if names}


QUICK = {
    "a method with a Fisher, an oracle and an audit": ["method=ssd"],
    "a method that adapts to a stream": ["method=tent", "scenario=continual"],
}
LONG = {
    "merging of experts": ["method=fisher_merging", "scenario=tasks"],
    "merging by Gram matrices": ["method=regmean", "scenario=tasks"],
    "tasks in sequence": ["method=ewc", "scenario=task_sequence"],
    "low-rank adapters": ["method=alignguard_lora", "scenario=task_sequence"],
    "domains": ["method=fishr", "training.epochs=3"],
    "curvature that is watched": ["method=erm", "scenario=none", "callbacks=[fisher,kfac]"],
    "adaptation with an anchor": ["method=eata", "scenario=continual"],
    "text": ["method=erm", "scenario=none", "data=reports", "model=char_gpt", "training.epochs=1"],
    "pruning": ["method=wood_fisher", "scenario=none"],
    "shadow models": ["method=ssd", "audit=u_lira", "audit.shadows=4"],
    "relearning": ["method=finetune", "audit.relearn_cap=20"],
    "optimizer": ["method=m_fac", "scenario=none"],
    "quantization": ["method=lq_lora", "scenario=none"],
}


@pytest.mark.parametrize("overrides", QUICK.values(), ids=QUICK)
def test_everything_that_runs_is_in_the_closure(overrides, tmp_path, monkeypatch):
    assert uncovered(overrides, tmp_path, monkeypatch) == {}


@pytest.mark.proof
@pytest.mark.parametrize("overrides", LONG.values(), ids=LONG)
def test_everything_that_runs_is_in_the_closure_of_every_wing(overrides, tmp_path, monkeypatch):
    assert uncovered(overrides, tmp_path, monkeypatch) == {}


def test_a_closure_that_forgets_a_file_is_found_out(tmp_path, monkeypatch):
    """The control: with the samplers of batches taken for bystanders, the same check must fail."""
    everything = code.counts
    monkeypatch.setattr(code, "counts", lambda module: everything(module) and module != "fisherexp.data.loader")
    monkeypatch.setattr(code, "_known", {})
    overrides = ["method=erm", "scenario=none", "model=mlp", "training.epochs=1"]
    cfg = composed([*overrides, f"output_dir={tmp_path}"])
    with traced() as calls:
        run_experiment(cfg, tmp_path / "run", overrides)
    behind = closure([code.RUNNER, *code.targets(semantic(cfg))], code.counts)
    monkeypatch.undo()
    assert "fisherexp.data.loader.Loader.__iter__" in missing(calls, behind)


def test_only_code_of_the_project_and_its_users_is_ours():
    assert is_ours("fisherexp.seeds")
    assert not any(map(is_ours, ("torch.nn", "json", "pytorch_lightning", "no_such_package", "__main__")))
