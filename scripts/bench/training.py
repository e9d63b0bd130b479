"""Steps per second of the default training against a bare loop over tensor slices with the same model.

    OMP_NUM_THREADS=1 python scripts/bench/training.py

Both train digits with the default model, batch size and optimizer, in one process, in alternation; the ratio is
the median over rounds of the time per epoch. Exits with 1 when ours takes more than 1.5 times as long.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

ROUNDS = 5
GOAL = 1.5


def bare_loop(bench: Workbench) -> float:
    """Seconds per epoch of a loop that does nothing but train."""
    recipe, data = bench.method("source.method").training_recipe, bench.data
    model = bench.method("source.method").model
    images, labels = data.train.inputs, data.train.targets
    steps = -(-len(labels) // data.batch_size)
    configured = recipe.configure(model, steps)
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    begun = time.perf_counter()
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(labels)).split(data.batch_size):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    return (time.perf_counter() - begun) / recipe.epochs


def ours(bench: Workbench, folder: Path) -> float:
    """Seconds per epoch of the run's own training loop, as its record counts them."""
    method = bench.method("source.method")
    bench.fit(method, folder, "training")
    return bench.costs["training"]["seconds"] / method.epochs


def main() -> int:
    with tempfile.TemporaryDirectory() as outputs:
        bench = Workbench(composed([f"output_dir={outputs}", "progress=off", "training.epochs=20"]))
        bare_loop(bench), ours(bench, Path(outputs))  # warm up
        pairs = [(bare_loop(bench), ours(bench, Path(outputs))) for _ in range(ROUNDS)]
    bare, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"bare loop {1e3 * bare:.1f} ms an epoch, ours {1e3 * own:.1f} ms: {ratio:.2f} times as long")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
