"""Experts: a model for each task of a scenario, all trained from the source, and what is known of each. As needs."""

from pathlib import Path
from typing import Any

from torch import Tensor

from fisherexp.methods.merging.grams import GramPass
from fisherexp.methods.need import Costs, Need
from fisherexp.seeds import derive


def experts(bench: Any, method: Any, source: Any) -> dict[str, tuple[Any, Any]]:
    """For each task the workbench that sees this task alone, and the weights that `method.experts` (makes a training
    method from a model) arrives at there, from those of the source.

    Raises ValueError for a training method that needs more than the source's weights."""
    found = {}
    for task, setting in bench.setting.tasks.items():
        alone = bench.variation(f"{task}:", derive("expert", bench.seed, task), setting)
        found[task] = (alone, _expert(alone, method, source))
    return found


def _expert(bench: Any, method: Any, source: Any) -> Any:
    trained = method.experts(model=bench.classifier("expert"))
    if trained.needs:
        needed = ", ".join(need.name for need in trained.needs)
        raise ValueError(f"method.experts: {type(trained).__name__} needs {needed}, which no expert is given; try erm")

    def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        trained.model.load_state_dict(source.tensors)
        bench.announce(trained)
        bench.fit(trained, scratch, "training the expert")
        return trained.model.state_dict(), {"cost": bench.costs["training the expert"], "outcome": trained.outcome}

    parts = {
        "start": source.key,
        "method": bench.semantic["method"]["experts"],
        "batches": [bench.data.batch_size, bench.data.augment],
        "samples": bench.setting.checksum(trained.fits_on),
        "trainer": bench.semantic["trainer"],
        "seed": bench.seed,
        "code": bench.code_of(_expert, type(trained)),
    }
    return bench.store.get("weights", parts, build)


class Experts(Need):
    """Task -> state of the expert, as the method's attribute `experts` makes it."""

    def __init__(self) -> None:
        super().__init__("experts")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        return {task: weights.tensors for task, (_, weights) in experts(bench, method, source).items()}, []


class ExpertFishers(Need):
    """Task -> FisherDiagonal of its expert on what it was trained on, as the method's `importance` says."""

    def __init__(self) -> None:
        super().__init__("expert_fishers")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        found = {t: alone.fisher(method.importance, w) for t, (alone, w) in experts(bench, method, source).items()}
        return {task: fisher for task, (fisher, _) in found.items()}, [cost for _, cost in found.values()]


class ExpertGrams(Need):
    """Task -> Gram matrix (d, d) of the inputs of every linear layer of its expert, on what it was trained on."""

    def __init__(self) -> None:
        super().__init__("expert_grams")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Any, Costs]:
        found = {task: _grams(*expert) for task, expert in experts(bench, method, source).items()}
        return {task: grams for task, (grams, _) in found.items()}, [cost for _, cost in found.values()]


def _grams(bench: Any, weights: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        grams = GramPass(bench.classifier("grams"))
        grams.model.load_state_dict(weights.tensors)
        bench.fit(grams, scratch, "Gram matrices")
        return grams.sums, {"cost": bench.costs["Gram matrices"]}

    parts = {
        "weights": weights.key,
        "samples": bench.setting.checksum(GramPass.fits_on),
        "trainer": bench.semantic["trainer"],
        "code": bench.code_of(_grams),
    }
    artefact = bench.store.get("grams", parts, build)
    return artefact.tensors, artefact.about["cost"]
