"""Time and memory of the exact diagonal Fisher, in units of one plain forward and backward pass.

    python scripts/bench/fisher.py                       # all models, batch 32 and 128, one thread
    python scripts/bench/fisher.py --threads 2 --peers --memory --json bench.json

Everything runs in rounds of random order in one process, on the same batch; the figure is the median of the per-round
ratios. One thread is measured in process CPU time (insensitive to pre-emption), more threads in wall time.
The plain pass is the mean loss, eval mode, default memory layout, all parameters requiring gradients. Malloc keeps what
is freed, as in a run; otherwise the ratio depends on which pass gave back what the next one needs (`--malloc left`).
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fisher_models import MODELS, plain_loss
from fisher_peers import PEERS

from fisherexp.curvature import DiagonalAccumulator
from fisherexp.curvature.kfac import KFACAccumulator
from fisherexp.runs.memory import keep_freed_memory


def plain(model, inputs, targets):
    """One forward and backward of the mean loss: the unit."""

    def run():
        model.zero_grad(set_to_none=True)
        plain_loss(model(inputs), targets).backward()

    return run


def accumulate(model, inputs, targets, **options):
    """One update of an accumulator that has seen a batch before."""
    accumulator = DiagonalAccumulator(model, loss="sequence" if targets.dim() == 2 else None, **options)
    return lambda: accumulator.update(inputs, targets)


def factorize(model, inputs, targets, approximation):
    """One update of a KFAC accumulator that has seen a batch before."""
    accumulator = KFACAccumulator(model, approximation=approximation, loss="sequence" if targets.dim() == 2 else None)
    return lambda: accumulator.update(inputs, targets)


OURS = {
    "fisher": lambda m, x, y: accumulate(m, x, y, compiled=False),
    "fisher compiled": lambda m, x, y: accumulate(m, x, y, compiled=True),
    "fisher expected": lambda m, x, y: accumulate(m, x, y, labels="expected", compiled=False),
    "kfac expand": lambda m, x, y: factorize(m, x, y, "expand"),
    "kfac reduce": lambda m, x, y: factorize(m, x, y, "reduce"),
}


def ratios(candidates: dict, rounds: int, seconds: float, clock) -> dict[str, tuple[float, float]]:
    """(median ratio to the first candidate, median seconds) of each, run in rounds.

    Each round has an order of its own: which pass one follows decides what it finds in the caches.
    """
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():  # warm up: allocator, layout
        run()
        run()
    first = next(iter(candidates))
    start = clock()
    candidates[first]()
    inner = max(1, int(0.02 / max(clock() - start, 1e-6)))  # short passes are repeated to be measurable
    deadline = time.perf_counter() + seconds
    while len(times[first]) < rounds or (time.perf_counter() < deadline and len(times[first]) < 15 * rounds):
        for name in order.sample(list(candidates), len(candidates)):
            start = clock()
            for _ in range(inner):
                candidates[name]()
            times[name].append((clock() - start) / inner)
    return {
        name: (statistics.median(t / u for t, u in zip(ts, times[first], strict=True)), statistics.median(ts))
        for name, ts in times.items()
    }


def peak_memory(model: str, batch: int, what: str) -> float:
    """Peak resident bytes above the state before the call, in a fresh process."""
    command = [sys.executable, __file__, "--models", model, "--batch", str(batch), "--only-memory", what]
    command += ["--threads", str(torch.get_num_threads())]
    # A fixed threshold: freed tensors return to the system at once and are not counted twice.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def high_water(run) -> float:
    """Growth of the peak resident set during `run()`, in bytes (Linux)."""

    def status(field: str) -> int:
        text = Path("/proc/self/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith(field))) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def candidates_for(name: str, batch: int, what: list[str], peers: bool) -> dict:
    """The plain pass, our functions and the peers that can run this model."""
    torch.manual_seed(0)
    model, inputs, targets = MODELS[name](batch)
    model.eval()
    runs = {"plain": plain(model, inputs, targets)}
    for label in what:
        if label == "fisher expected" and targets.dim() == 2:
            continue  # exact expectation over label sequences is T (V-1) passes
        runs[label] = OURS[label](model, inputs, targets)
    kinds = {label.split()[0] for label in what} if peers else set()
    for label, make in ((label, make) for kind in PEERS if kind in kinds for label, make in PEERS[kind].items()):
        try:
            run = make(*MODELS[name](batch))
            run()
        except Exception as error:  # a peer that cannot run is reported and left out
            print(f"  {label} cannot run {name}: {type(error).__name__}: {str(error)[:90]}", file=sys.stderr)
            continue
        runs[label] = run
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--what", nargs="+", default=["fisher"], choices=list(OURS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="measure each model at least so long")
    parser.add_argument("--malloc", choices=("kept", "left"), default="kept", help="what becomes of freed memory")
    parser.add_argument("--peers", action="store_true", help="also run the peers that are installed")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--only-memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    if options.only_memory:
        what = [w for w in [options.only_memory] if w != "plain"]
        # A batch of two first, so that libraries are loaded; then from nothing: gradients, and the sums of an
        # accumulator, are part of what is measured.
        torch.manual_seed(0)
        model, inputs, targets = MODELS[options.models[0]](options.batch[0])
        model.eval()
        make = OURS[what[0]] if what else plain
        make(model, inputs[:2], targets[:2])()
        model.zero_grad(set_to_none=True)
        print(high_water(lambda: make(model, inputs, targets)()))
        return
    malloc = "keeps" if options.malloc == "kept" and keep_freed_memory() else "does not keep"
    clock = time.process_time if options.threads == 1 else time.perf_counter
    unit = "process CPU time" if options.threads == 1 else "wall time"
    machine = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {machine}, {options.threads} thread(s), {unit}, malloc {malloc} freed memory")
    rows = []
    for name in options.models:
        for batch in options.batch:
            runs = candidates_for(name, batch, options.what, options.peers)
            measured = ratios(runs, options.rounds, options.seconds, clock)
            for label, (ratio, seconds) in measured.items():
                row = {"model": name, "batch": batch, "threads": options.threads, "what": label}
                row |= {"ratio": round(ratio, 3), "ms": round(1000 * seconds, 2)}
                if options.memory and label in ("plain", *OURS):
                    row["MB"] = round(peak_memory(name, batch, label) / 2**20, 1)
                rows.append(row)
                memory = f"  {row['MB']:8.1f} MB" if "MB" in row else ""
                print(f"{name:10} B={batch:<4} {label:22} {ratio:7.3f}  {1000 * seconds:9.2f} ms{memory}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
