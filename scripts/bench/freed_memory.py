"""Time of a training step where malloc keeps what is freed, as a run has it, over one where it does not.

    python scripts/bench/freed_memory.py                # as many threads as cores
    python scripts/bench/freed_memory.py --threads 1

Each figure is the median of rounds, in each of which either way trains in a fresh process of its own; a step's time is
the process's median. Pages are those that the system gave a process for one step; memory is the peak of the process.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fisher_models import MODELS, plain_loss

from fisherexp.runs.memory import DECIDED, keep_freed_memory
from fisherexp.runs.threads import available_cores

CASES = [("mlp", 128), ("cnn", 128), ("cnn", 512), ("resnet18", 32), ("resnet18", 128), ("gpt", 128)]
SECONDS = 8.0


def train(name: str, batch: int, threads: int) -> dict[str, float]:
    """Steps of SGD on one batch."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, inputs, targets = MODELS[name](batch)
    optimizer, times = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9), []

    def step() -> None:
        optimizer.zero_grad()
        plain_loss(model(inputs), targets).backward()
        optimizer.step()

    step()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": 1e3 * statistics.median(times),
        "pages": (usage.ru_minflt - before) / len(times),
        "MB": usage.ru_maxrss / 1024,
    }


def fresh(way: str, *case) -> dict[str, float]:
    """`train` in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if name not in DECIDED}
    command = [sys.executable, __file__, "--only", way, *map(str, case)]
    return json.loads(subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        way, name, *numbers = options.only
        if way == "kept" and not keep_freed_memory():
            raise SystemExit("this malloc cannot be asked to keep freed memory")
        print(json.dumps(train(name, *map(int, numbers))))
        return
    for name, batch in CASES:
        rounds = [
            {way: fresh(way, name, batch, options.threads) for way in ("left", "kept")} for _ in range(options.rounds)
        ]
        left, kept = (
            {k: statistics.median(r[way][k] for r in rounds) for k in ("ms", "pages", "MB")} for way in ("left", "kept")
        )
        ratio = statistics.median(r["kept"]["ms"] / r["left"]["ms"] for r in rounds)
        figures = "  ".join(f"{unit} {left[unit]:.0f} -> {kept[unit]:.0f}" for unit in ("ms", "pages", "MB"))
        print(f"{name:9} B={batch:<4} {ratio:.2f}  {figures}", flush=True)


if __name__ == "__main__":
    main()
