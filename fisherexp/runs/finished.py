"""A run's method at the end of its work: from the weights it starts with, through what it needs, to its last fit."""

from pathlib import Path
from typing import Any

from fisherexp.callbacks.cost import Cost
from fisherexp.callbacks.curve import tell
from fisherexp.files import require_room
from fisherexp.methods.method import ModelMethod
from fisherexp.runs.artefact import Artefact
from fisherexp.runs.code import targets
from fisherexp.runs.workbench import Workbench


def finished(bench: Workbench, folder: Path, own: bool = False) -> tuple[ModelMethod, dict[str, float]]:
    """The run's method at the end of its fit, and its price: seconds, samples sent forward and backward.

    The price includes that of the curvature it needs, whoever paid it.
    """
    method = bench.method("method")
    if own:  # now, and not when all is done and to be written
        require_room(folder, sum(tensor.nbytes for tensor in method.model.state_dict().values()), "the trained model")
    if method.start == "scratch":
        weights = bench.trained("method", folder if own else None)
        method.model.load_state_dict(weights.tensors)
        method.outcome = weights.about["outcome"]
        if own and not weights.built:  # trained before, by this run or another one
            tell(bench.loggers, weights.about.get("curve", []))
        return method, weights.about["cost"]
    source = bench.reference(method.start)
    bench.started_from = source
    method.model.load_state_dict(source.tensors)
    costs = resolve_needs(bench, method, source)
    if not bench.setting.requests:
        bench.announce(method)
    phase = type(method).__name__
    if method.epochs and not bench.setting.requests:
        bench.fit(method, folder, phase, own)
        costs.append(bench.costs[phase])
    elif method.epochs:
        method, phases = _answered(bench, method, folder, own)
        costs += [bench.costs[name] for name in phases]
    return method, {figure: sum(cost[figure] for cost in costs) for figure in Cost().counts()}


def resolve_needs(bench: Workbench, method: ModelMethod, source: Artefact) -> list[dict[str, float]]:
    """Put everything `method.needs` names into `method.given`; returns what it costs."""
    costs = []
    for need in method.needs:
        method.given[need.name], price = need.resolve(bench, method, source)
        costs += price
    return costs


def _answered(bench: Workbench, method: ModelMethod, folder: Path, own: bool) -> tuple[ModelMethod, list[str]]:
    """The method after all requests of the setting, and the names of the phases that took. Each request is
    answered by a new method of the same kind, which begins with the weights that the last one left."""
    outcomes, phases = [], []
    for number, request in enumerate(bench.setting.requests, start=1):
        answer = bench.method("method")
        answer.given = method.given
        answer.model.load_state_dict(method.model.state_dict())
        bench.announce(answer)
        phases.append(f"{type(method).__name__}, request {number}")
        bench.fit(answer, folder / f"request_{number}", phases[-1], own, setting=request)
        outcomes.append(answer.outcome)
        method = answer
    method.outcome = {"requests": outcomes}
    return method, phases


def finished_key(bench: Workbench) -> dict[str, Any]:
    """What decides the weights that `finished` arrives at, for a scenario with something to forget."""
    method, setting = bench.method("method"), bench.setting
    return {
        "method": bench.semantic["method"],
        "start": bench.trained("method").key if method.start == "scratch" else bench.reference(method.start).key,
        "samples": {part: setting.checksum(part) for part in ("train", "retain", "forget")},
        "batches": [bench.data.batch_size, bench.data.augment],
        "seed": bench.seed,
        "code": bench.code_of(finished, *targets([bench.semantic["method"], bench.semantic["scenario"]])),
    }
