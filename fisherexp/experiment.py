"""The one path every run takes."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback
from torch import Tensor, nn

from fisherexp.callbacks.finite import check_figures
from fisherexp.config.locations import WEIGHTS
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.method import Method
from fisherexp.models.backbone import origin_of
from fisherexp.ranks import is_follower
from fisherexp.runs.artefact import write_tensors
from fisherexp.runs.code import code_behind
from fisherexp.runs.finished import finished
from fisherexp.runs.identity import family, identity, name_of
from fisherexp.runs.loggers import close, mirror
from fisherexp.runs.memory import begin_peak, keep_freed_memory, peak_memory
from fisherexp.runs.prune import Prune
from fisherexp.runs.record import provenance
from fisherexp.runs.solved import outcome_of, solved
from fisherexp.runs.workbench import Workbench

# Trainer options that use a part of the data only: such a run is a trial, and tables leave it out.
LIMITS = ("fast_dev_run", "overfit_batches", "limit_train_batches", "limit_test_batches")

STAGES = ("before", "after", "oracle", "oracle_deviation")


def run_experiment(
    cfg: DictConfig, folder: Path, overrides: list[str], callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Run what a validated config describes and return its record (plain containers).

    Of a method with Lightning's loops: source weights → what the method needs → fit → evaluation → the models it is
    compared with → audit → record. Of an iterative method: steps → evaluation → record. The final tensors are left in
    `folder`/weights.safetensors. `callbacks` join those of the config in the loops of the run's own method.
    """
    begun = time.perf_counter()
    keep_freed_memory()
    forgotten = begin_peak()
    run_id = identity(cfg)
    named = {"folder": folder, "run_id": run_id, "group": family(cfg)}
    loggers = [instantiate(node, _partial_=True)(**named) for node in cfg.logger.values()]
    callbacks = [*(instantiate(node, _convert_="all") for node in cfg.callbacks.values()), *callbacks]
    callbacks += Prune.of_environment()
    status = "failed"
    try:
        bench = Workbench(cfg, loggers, callbacks)
        iterative = issubclass(get_class(cfg.method._target_), IterativeMethod)
        record = _run_steps(bench, folder) if iterative else _run_network(bench, folder)
        for stage, figures in record["metrics"].items():
            check_figures(figures, stage)
        record |= {
            "identity": run_id,
            "names": {node: name_of(cfg, node) for node in ("method", "data", "model", "scenario")},
            "config": OmegaConf.to_container(cfg, resolve=True),
            "semantic": bench.semantic,
            "published": bench.published(),
            "seed": cfg.seed,
            "headings": bench.headings | record.pop("headings", {}) | {"seconds": "seconds"},
            "better": bench.better | record.pop("better", {}) | {"seconds": "lower"},
            "trial": cfg.evaluate_on == "validation" or any(cfg.trainer[option] for option in LIMITS),
            "source": _source(bench),
            "data_checksum": bench.problem.checksum(),
            "setting": bench.problem.about(),
            "threads": bench.threads or torch.get_num_threads(),
            "costs": bench.costs,
            "memory": peak_memory(forgotten),
            "seconds": time.perf_counter() - begun,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **provenance(overrides),
        }
        record["code"] = record["code"] | {"closure": code_behind(bench.semantic)}
        mirror(loggers, record, folder, bench.store.used)
        status = "success"
        return record
    finally:
        close(loggers, status)


def _run_network(bench: Workbench, folder: Path) -> dict[str, Any]:
    # The run's own method first: where it is itself a reference, its loggers see the training.
    method, price = finished(bench, folder, own=True)
    phase = "adapting" if method.adapts_at_test else "evaluating the result"
    looped = bench.problem.has_test_loop
    after = bench.test(method, folder, phase, own=True) if looped else bench.problem.evaluate(method)
    if method.adapts_at_test:  # then evaluating is where it works
        price = {figure: value + bench.costs[phase][figure] for figure, value in price.items()}
    stages = {"after": after | price | method.outcome.get("metrics", {})}
    for stage, name in bench.references.items():
        stages[stage] = bench.evaluated(name) | bench.reference(name).about["cost"]
    if bench.audit is not None:
        for stage, found in bench.audit.examine(bench, method).items():
            stages[stage] = stages.get(stage, {}) | found

    if is_follower():
        return {"metrics": {}, "outcome": {}}
    _leave(bench, method, folder, method.model.state_dict())
    metrics = {stage: stages[stage] for stage in STAGES if stage in stages}
    pretrained = _pretrained(method.model)
    return (
        {"metrics": metrics, "outcome": method.outcome}
        | ({"pretrained": pretrained} if pretrained else {})
        | _shown(method)
    )


def _pretrained(model: nn.Module) -> dict[str, Any]:
    """What weights the network came with, and with what constants images are normalized; empty of a new one."""
    found = origin_of(model)
    return found | {name: getattr(model, name).flatten().tolist() for name in ("mean", "std") if name in found}


def _source(bench: Workbench) -> dict[str, Any] | None:
    """What the run's method started with: the kind of source, where its weights are from, a hash of them, and names of
    weights that were new; None where it started from scratch."""
    if bench.started_from is None:
        return None
    found = bench.started_from
    about = {"origin": found.about.get("origin", {}), "new": found.about.get("new", [])}
    return {"kind": name_of(bench.cfg, "source"), "weights": found.key} | about


def _run_steps(bench: Workbench, folder: Path) -> dict[str, Any]:
    method, price = solved(bench, folder)
    after = outcome_of(bench, method) | price | method.outcome.get("metrics", {})
    _leave(bench, method, folder, method.tensors())
    return {"metrics": {"after": after}, "outcome": method.outcome} | _shown(method)


def _shown(method: Method) -> dict[str, Any]:
    return {"headings": method.headings, "better": method.better}


def _leave(bench: Workbench, method: Method, folder: Path, tensors: dict[str, Tensor]) -> None:
    """Files of the method and of its evaluation, and the method's tensors, in the run's folder."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    method.leave_files(folder)
    bench.problem.leave_files(folder)
    if state:
        write_tensors(folder / WEIGHTS, state, {})
