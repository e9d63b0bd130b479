"""What a method declares that it needs beyond the weights it starts from, and what finding or building it cost."""

from collections.abc import Callable
from typing import Any

from fisherexp.methods.method import Method
from fisherexp.runs.experts import experts, fisher_of, grams_of
from fisherexp.runs.store import Artefact
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import derive

Costs = list[dict[str, float]]


def met(bench: Workbench, method: Method, source: Artefact) -> Costs:
    """Put everything `method.needs` names into `method.given`. Models are no part of the price, curvature is."""
    costs: Costs = []
    for need in method.needs:
        method.given[need], price = NEEDS[need](bench, method, source)
        costs += price
    return costs


def _fisher(attribute: str) -> Callable[[Workbench, Method, Artefact], tuple[Any, Costs]]:
    """The Fisher at the source that an attribute of the method means."""

    def find(bench: Workbench, method: Method, source: Artefact) -> tuple[Any, Costs]:
        fisher, cost = bench.fisher(getattr(method, attribute), source)
        return fisher, [cost]

    return find


def _initial(bench: Workbench, method: Method, source: Artefact) -> tuple[Any, Costs]:
    return bench.method(method.start).model.state_dict(), []


def _other_seeds(bench: Workbench, method: Method, source: Artefact) -> tuple[Any, Costs]:
    others = []
    for number in range(1, method.others + 1):
        other = bench.variation(f"other seed {number}:", derive("other_seed", bench.seed, number))
        others.append(other.trained(method.start).tensors)
    return others, []


def _experts(bench: Workbench, method: Method, source: Artefact) -> tuple[Any, Costs]:
    return {task: weights.tensors for task, (_, weights) in experts(bench, method, source).items()}, []


def _expert_fishers(bench: Workbench, method: Method, source: Artefact) -> tuple[Any, Costs]:
    return _of_each(fisher_of, bench, method, source)


def _expert_grams(bench: Workbench, method: Method, source: Artefact) -> tuple[Any, Costs]:
    return _of_each(grams_of, bench, method, source)


def _of_each(measure: Callable, bench: Workbench, method: Method, source: Artefact) -> tuple[dict[str, Any], Costs]:
    found = {task: measure(*expert, method) for task, expert in experts(bench, method, source).items()}
    return {task: value for task, (value, _) in found.items()}, [cost for _, cost in found.values()]


NEEDS: dict[str, Callable[[Workbench, Method, Artefact], tuple[Any, Costs]]] = {
    "fisher": _fisher("importance"),
    "kfac": _fisher("factors"),
    "low_rank": _fisher("rows"),
    "initial": _initial,
    "other_seeds": _other_seeds,
    "experts": _experts,
    "expert_fishers": _expert_fishers,
    "expert_grams": _expert_grams,
}
