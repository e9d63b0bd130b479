"""How fast a fine-tuning starts."""

import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from fisherexp.methods.method import ModelMethod
from fisherexp.runs.finished import resolve_needs
from fisherexp.runs.workbench import Workbench


def first_loss(
    bench: Workbench, folder: Path, seed: int, prepare: Callable[[ModelMethod], None] | None = None, steps: int = 20
) -> float:
    """Mean loss of the first training steps of a bench's method, which starts from its source.

    prepare: is given the method once what it needs is there.
    """
    method, source, losses = bench.method("method"), bench.reference("source"), []

    class Seen(type(method)):
        stream = type(method).stream_name()

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            losses.append(loss.item())
            return loss

    method.__class__ = Seen
    method.model.load_state_dict(source.tensors)
    resolve_needs(bench, method, source)
    if prepare is not None:
        prepare(method)
    torch.manual_seed(seed)
    method.source_loaded()
    bench.fit(method, folder, "fit")
    return statistics.fmean(losses[:steps])
