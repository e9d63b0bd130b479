"""A method that is a loop of steps of its own, at the end of it: saved on the way, gone on with after a kill."""

import time
from pathlib import Path
from typing import Any

import torch

from fisherexp.callbacks import checkpoint
from fisherexp.callbacks.curve import Curve, tell
from fisherexp.callbacks.finite import check_figures
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.runs.trainer import device_of
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import derive
from fisherexp.stop import Stopped, finishing_the_step, is_asked


def solved(bench: Workbench, folder: Path) -> tuple[IterativeMethod, dict[str, float]]:
    """The run's method after its last step, and its price: seconds, steps.

    The state is saved every `checkpoint_every` seconds and when the run is asked to stop; figures of each step go to
    the loggers. A run that goes on tells them all those before, too: they begin afresh in every process.
    """
    problem = bench.problem.load(bench.seed)
    make = bench.make("method", _partial_=True)
    name = make.func.__name__
    method: IterativeMethod = make(model=bench.network(name)) if make.func.uses_model else make()
    if method.on_device:
        problem = problem.to(device_of(bench.cfg.trainer.accelerator))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "last.ckpt"
    torch.manual_seed(derive("fit", bench.seed, name))
    method.begin(problem, bench.seed)
    number, spent = 0, 0.0
    curve = Curve(folder)
    loggers = [*bench.loggers, curve]
    if found := checkpoint.newest(file):
        saved = torch.load(found, map_location="cpu", weights_only=True)
        number, spent = saved["step"], saved["seconds"]
        torch.set_rng_state(saved["rng"])
        method.load_state_dict(saved["state"])
        tell(loggers, saved["curve"])
    meter = bench.meter(name)
    meter.begin(None, number)
    begun = last = time.monotonic()

    def save() -> None:
        state = {"step": number, "seconds": spent + time.monotonic() - begun, "state": method.state_dict()}
        checkpoint.save(file, state | {"rng": torch.get_rng_state(), "curve": curve.rows})

    with finishing_the_step():
        try:
            while not method.done:
                figures = method.step()
                number += 1
                check_figures(figures, f"{name}, step {number}")
                meter.advance(number, lambda figures=figures: in_words(figures))
                for logger in loggers:
                    logger.log_metrics(figures, step=number)
                if is_asked():
                    save()
                    raise Stopped
                if time.monotonic() - last > bench.cfg.checkpoint_every:
                    save()
                    last = time.monotonic()
        finally:
            meter.stop()
    meter.finish()
    checkpoint.remove(file)
    cost = {"seconds": spent + time.monotonic() - begun, "steps": number}
    bench.costs[name] = cost
    return method, cost


def in_words(figures: dict[str, float]) -> str:
    """`marginal error 0.0123`: the first figure of a step, which says how far a method is."""
    return next((f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items()), "")


def outcome_of(bench: Workbench, method: IterativeMethod) -> dict[str, Any]:
    """Metrics of what it arrived at: those of the problem's evaluation, and the method's own."""
    return method.problem.evaluate(method.solution()) | method.metrics()
