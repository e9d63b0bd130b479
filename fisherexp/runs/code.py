"""The code behind a number, as a hash: of what the import closure holds and of nothing else (see closure.py).

Light: no torch.
"""

from typing import Any

from fisherexp.content import content
from fisherexp.runs.closure import Closure, NotFound, closure
from fisherexp.runs.identity import digest
from fisherexp.runs.modules import read_module

# Rooms and files of the project whose code changes no number, each with the reason. What is not named here counts.
BYSTANDERS = {
    "fisherexp.app": "asks for runs",
    "fisherexp.catalogue": "lists what there is",
    "fisherexp.cli": "asks for runs",
    "fisherexp.config": "makes the config, which is in every key itself",
    "fisherexp.content": "hashes",
    "fisherexp.contract": "checks methods",
    "fisherexp.figures": "draws",
    "fisherexp.files": "writes files",
    "fisherexp.handbook": "lists what there is",
    "fisherexp.interactive": "asks for runs",
    "fisherexp.reports": "shows what runs have found",
    "fisherexp.single": "asks for runs",
    "fisherexp.stop": "ends a process between two steps, never within one",
    "fisherexp.sweeps": "asks for runs",
    "fisherexp.callbacks.bars": "draws",
    "fisherexp.callbacks.checkpoint": "keeps states",
    "fisherexp.callbacks.collapse_figures": "draws",
    "fisherexp.callbacks.curve": "tells others of a run",
    "fisherexp.callbacks.domain_figure": "draws",
    "fisherexp.callbacks.meter": "shows how far a run is",
    "fisherexp.callbacks.progress": "shows how far a run is",
    "fisherexp.callbacks.sample_figure": "draws",
    "fisherexp.runs.artefact": "keeps artefacts",
    "fisherexp.runs.closure": "hashes",
    "fisherexp.runs.code": "hashes",
    "fisherexp.runs.frozen": "keeps configs",
    "fisherexp.runs.identity": "hashes",
    "fisherexp.runs.ledger": "keeps book",
    "fisherexp.runs.loggers": "tells others of a run",
    "fisherexp.runs.memory": "gives memory back",
    "fisherexp.runs.module_files": "hashes",
    "fisherexp.runs.modules": "hashes",
    "fisherexp.runs.network": "reads what a run left",
    "fisherexp.runs.prune": "ends trials of a search",
    "fisherexp.runs.record": "keeps book",
    "fisherexp.runs.state": "keeps book",
    "fisherexp.runs.store": "keeps artefacts",
    "fisherexp.runs.study": "keeps book",
    "fisherexp.runs.wandb_logger": "tells others of a run",
    "fisherexp.runs.threads": "changes the last bits of a sum at most, and the number of threads is recorded",
}

RUNNER = "fisherexp.experiment.run_experiment"

_known: dict[frozenset[str], tuple[Closure, dict[str, str], str]] = {}


def counts(module: str) -> bool:
    """Can the code of a module change a number?"""
    parts = module.split(".")
    if parts == ["fisherexp"]:  # the package itself only knows where its names lie
        return False
    return not any(".".join(parts[:cut]) in BYSTANDERS for cut in range(1, len(parts) + 1))


def code_of(*producers: Any) -> str:
    """Hash of the code that `producers` work with: classes, functions and methods, or their names as in `_target_`.

    Comments, docstrings and layout do not count, nor do reports, loggers and the book-keeping of runs, nor the place
    of the files. Installed distributions do not either: their versions are in the record, and upgrading one should not
    throw away every source model. Raises NotFound for a name in no module.
    """
    roots = frozenset(p if isinstance(p, str) else f"{p.__module__}.{_place(p)}" for p in producers)
    if found := _known.get(roots):
        reached, data, known = found
        if data == _data(reached) and all(read_module(name) is m for name, m in reached.modules.items()):
            return known
    reached = closure(roots, counts)
    data = _data(reached)
    _known[roots] = reached, data, digest([reached.shapes, data], length=20)
    return _known[roots][-1]


def code_behind(semantic: dict[str, Any]) -> str:
    """Hash of all the code that can change the result of a run: the runner's, and that of everything its config names.

    semantic: what decides the result (see identity.py). Raises NotFound for a `_target_` in no module.
    """
    return code_of(RUNNER, *targets(semantic))


def has_changed(record: dict[str, Any]) -> bool:
    """Is the code behind a recorded run another one now? So it is where it is gone, or was not recorded."""
    try:
        return record["code"]["closure"] != code_behind(record["semantic"])
    except (KeyError, TypeError, NotFound, SyntaxError):
        return True


def targets(node: Any) -> set[str]:
    """Every `_target_` in nested containers."""
    if isinstance(node, dict):
        own = {node["_target_"]} if isinstance(node.get("_target_"), str) else set()
        return own.union(*map(targets, node.values()))
    return set().union(*map(targets, node)) if isinstance(node, list | tuple) else set()


def _place(producer: Any) -> str:
    """Where a class or function is defined within its module; of one made in a function, that function."""
    return producer.__qualname__.partition(".<locals>")[0]


def _data(reached: Closure) -> dict[str, str]:
    return {name: content(file) for name, file in reached.files.items()}
