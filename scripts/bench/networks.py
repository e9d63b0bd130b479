"""What the exact diagonal Fisher costs on real networks, in units of one plain forward and backward pass.

    python scripts/bench/networks.py                           # the whole table, one thread, then two
    python scripts/bench/networks.py --networks minilm resnet18 --threads 2 --memory --json networks.json

stream: a new accumulator, some batches and its result, over as many plain passes; alone: one `fisher_diagonal` of one
batch over one plain pass. Both include what is found out on a first batch, on the plain and on the compiled path; KFAC
as a stream. Memory is that of one batch over a plain pass, in the order of the columns. Rounds, clocks and malloc as in
fisher.py: run it on a quiet machine. A figure above its goal is marked, and the exit status is 1.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fisher import high_water, ratios
from fisher_networks import NETWORKS, Missing, Network

from fisherexp.curvature import DiagonalAccumulator, KFACAccumulator, fisher_diagonal
from fisherexp.runs.memory import keep_freed_memory

WHAT = ("stream", "stream compiled", "alone", "alone compiled", "kfac expand", "kfac reduce")


def candidates(network: Network, what: list[str], stream: int) -> dict:
    """Name -> (run(), how many plain passes it is to be compared with); the plain pass first."""
    torch.manual_seed(0)
    model, inputs, targets = network.make()
    model.eval()

    def plain():
        model.zero_grad(set_to_none=True)
        network.mean_loss(model, inputs, targets).backward()

    def accumulated(make, **options):
        accumulator = make(model, loss=network.loss, **options)
        for _ in range(stream):
            accumulator.update(inputs, targets)
        return accumulator.result()

    def alone(compiled):
        return fisher_diagonal(model, [(inputs, targets)], loss=network.loss, compiled=compiled)

    runs = {
        "stream": (lambda: accumulated(DiagonalAccumulator, compiled=False), stream),
        "stream compiled": (lambda: accumulated(DiagonalAccumulator, compiled=True), stream),
        "alone": (lambda: alone(False), 1),
        "alone compiled": (lambda: alone(True), 1),
    }
    if network.kfac:
        runs["kfac expand"] = lambda: accumulated(KFACAccumulator, approximation="expand"), stream
        runs["kfac reduce"] = lambda: accumulated(KFACAccumulator, approximation="reduce"), stream
    return {"plain": (plain, 1)} | {name: run for name, run in runs.items() if name in what}


def peak(name: str, what: str, threads: int) -> float:
    """Peak resident MB above the state before, in a fresh process; of a stream, one batch."""
    command = [sys.executable, __file__, "--networks", name, "--threads", str(threads), "--only-memory", what]
    # A fixed threshold: freed tensors return to the system at once and are not counted twice.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def measured(name: str, options: argparse.Namespace, threads: int) -> dict:
    """One row: seconds of the plain pass, and the ratio of everything else to it."""
    network = NETWORKS[name]
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    made = candidates(network, options.what, options.stream)
    found = ratios({what: run for what, (run, _) in made.items()}, options.rounds, options.seconds, clock)
    row = {"network": name, "batch": network.shape, "threads": threads, "ms": round(1000 * found["plain"][1], 1)}
    row |= {what: round(found[what][0] / passes, 3) for what, (_, passes) in made.items() if what != "plain"}
    if options.memory:
        base = peak(name, "plain", threads)
        row["memory"] = {what: round(peak(name, what, threads) / base, 3) for what in made if what != "plain"}
    return row


def shown(row: dict) -> tuple[str, bool]:
    """The row as one of a Markdown table, and whether it reaches its goals; what does not is marked."""
    network, met, cells = NETWORKS[row["network"]], True, []
    for what in WHAT:
        goal = {"stream": network.stream, "alone": network.alone}.get(what.split()[0])
        missed = what in row and goal is not None and row[what] > goal
        met = met and not missed
        cells.append(f"{row[what]:.2f}{f' (goal {goal})' * missed}" if what in row else "")
    memory = " / ".join(f"{value:.2f}" for value in row.get("memory", {}).values())
    start = f"{row['network']}, {row['batch']} | {row['threads']} | {row['ms']:.0f} ms"
    return f"| {start} | {' | '.join(cells)} | {memory} |", met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--what", nargs="+", default=list(WHAT), choices=WHAT)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--stream", type=int, default=6, help="batches of a stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="measure each network at least so long")
    parser.add_argument("--memory", action="store_true", help="also peak memory over that of a plain pass")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--only-memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.only_memory:
        torch.set_num_threads(options.threads[0])
        run, _ = candidates(NETWORKS[options.networks[0]], [options.only_memory], 1)[options.only_memory]
        print(high_water(run))
        return 0
    malloc = "keeps" if keep_freed_memory() else "does not keep"
    print(f"torch {torch.__version__}, one thread: CPU time, more: wall time, malloc {malloc} freed memory\n")
    print(f"| network, batch | threads | plain pass | {' | '.join(WHAT)} | memory |\n|{'---|' * (len(WHAT) + 4)}")
    rows, met = [], True
    for name in options.networks:
        for threads in options.threads:
            try:
                rows.append(measured(name, options, threads))
            except Missing as missing:
                print(f"| {name}, {NETWORKS[name].shape} | not measured: {missing} |", flush=True)
                break
            line, reached = shown(rows[-1])
            print(line, flush=True)
            met = met and reached
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1))
    return not met


if __name__ == "__main__":
    sys.exit(main())
