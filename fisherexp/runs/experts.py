"""Experts as artefacts: a model for each task of a scenario, all trained from the source, and what is known of each."""

from pathlib import Path
from typing import Any

from torch import Tensor

from fisherexp.curvature import FisherDiagonal
from fisherexp.methods.merging.grams import GramPass
from fisherexp.methods.method import Method
from fisherexp.runs.code import targets
from fisherexp.runs.store import Artefact
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import derive

Expert = tuple[Workbench, Artefact]


def experts(bench: Workbench, method: Method, source: Artefact) -> dict[str, Expert]:
    """For each task the workbench that sees this task alone, and the weights that `method.experts` (makes a training
    method from a model) arrives at there, from those of the source."""
    found = {}
    for task, setting in bench.setting.tasks.items():
        alone = bench.variation(f"{task}:", derive("expert", bench.seed, task), setting)
        found[task] = (alone, _expert(alone, method, source))
    return found


def _expert(bench: Workbench, method: Method, source: Artefact) -> Artefact:
    trained = method.experts(model=bench.classifier("expert"))

    def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        trained.model.load_state_dict(source.tensors)
        bench.fit(trained, scratch, "training the expert")
        return trained.model.state_dict(), {"cost": bench.costs["training the expert"], "outcome": trained.outcome}

    parts = {
        "start": source.key,
        "method": bench.semantic["method"]["experts"],
        "batches": [bench.data.batch_size, bench.data.augment],
        "samples": bench.setting.checksum(trained.fits_on),
        "trainer": bench.semantic["trainer"],
        "seed": bench.seed,
        "code": bench.code_of(_expert, type(trained), *targets(bench.semantic["method"]["experts"])),
    }
    return bench.store.get("weights", parts, build)


def fisher_of(bench: Workbench, weights: Artefact, method: Method) -> tuple[FisherDiagonal, dict[str, float]]:
    """Diagonal Fisher of an expert on what it was trained on, as `method.importance` says, and its cost."""
    return bench.fisher(method.importance, weights)


def grams_of(bench: Workbench, weights: Artefact, method: Method) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gram matrix (d, d) of the inputs of every linear layer of an expert, on what it was trained on, and its cost."""

    def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        grams = GramPass(bench.classifier("grams"))
        grams.model.load_state_dict(weights.tensors)
        bench.fit(grams, scratch, "Gram matrices")
        return grams.sums, {"cost": bench.costs["Gram matrices"]}

    parts = {
        "weights": weights.key,
        "samples": bench.setting.checksum(GramPass.fits_on),
        "trainer": bench.semantic["trainer"],
        "code": bench.code_of(grams_of),
    }
    artefact = bench.store.get("grams", parts, build)
    return artefact.tensors, artefact.about["cost"]
