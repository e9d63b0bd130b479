"""LowRankFisher against memory bandwidth, one matrix product, and the sequential recursion.

    OMP_NUM_THREADS=1 python scripts/bench/low_rank.py    # m = 512 and 1024, d = 270000; needs 4 GB
    python scripts/bench/low_rank.py --rows 1024

An inverse-vector product must read G twice (G^T c needs all of G x), so its floor is 2 m d 4 bytes at the
measured bandwidth, the faster of a sum over G and a dot product with itself. Everything runs in this process
in alternation; a ratio is the median over rounds of that round's ratio. One thread is measured in process CPU
time, more threads in wall time. Exits with 1 when the product is below 80 % of the bandwidth, set-up above
1.5 times G G^T, or the recursion less than 10 times slower.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fisherexp.curvature.low_rank import LowRankFisher

DAMPING = 1e-5


def recursion(rows):
    """M-FAC's static set-up: v_i = F_{i-1}^-1 g_i needs all earlier vectors, one matrix-vector pair each."""
    m = len(rows)
    vectors, scale = torch.empty_like(rows), torch.empty(m)
    for i, row in enumerate(rows):
        v = row / DAMPING
        if i:
            v -= vectors[:i].T @ ((vectors[:i] @ row) / scale[:i])
        vectors[i] = v
        scale[i] = m + row @ v
    return vectors, scale


def set_up(rows):
    """The Gram product and the factor: everything before a second solve."""
    fisher = LowRankFisher(rows)
    fisher.inverse_element(0, 0, DAMPING)  # factorizes
    return fisher


def timed(run):
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def alternate(runs, rounds):
    """Name -> seconds of every round, after one round to warm up."""
    for run in runs.values():
        run()
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timed(run))
    return times


def ratio(times, above, below):
    """Median over rounds of above / below."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--dim", type=int, default=270_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--recursion-up-to", type=int, default=512, help="skip the recursion for more rows")
    options = parser.parse_args()
    print(f"d={options.dim}, threads={torch.get_num_threads()}, torch {torch.__version__}")
    missed = []

    def report(m, what, value, unit, goal=None, at_least=True):
        met = goal is None or (value >= goal if at_least else value <= goal)
        bound = "" if goal is None else f"   goal {'>=' if at_least else '<='} {goal}"
        print(f"m={m:<5} {what:<46}{value:>9.3f} {unit}{bound}", flush=True)
        if not met:
            missed.append(f"m={m}: {what} {value:.3f} {unit}")

    for m in options.rows:
        torch.manual_seed(0)
        rows = torch.randn(m, options.dim) / options.dim**0.5
        x = torch.randn(options.dim)
        fisher, newest = set_up(rows), torch.eye(m)[0]

        row = rows[0].clone()

        def replace_and_solve(fisher=fisher, newest=newest, row=row):
            fisher.cursor = 0
            fisher.replace_row(row)
            fisher.solve_rows(newest, DAMPING)

        fast = alternate(
            {
                "sum": lambda rows=rows: rows.sum(),
                "dot": lambda rows=rows: torch.dot(rows.view(-1), rows.view(-1)),
                "solve": lambda fisher=fisher, x=x: fisher.solve(x, DAMPING),
                "two gemv": lambda rows=rows, x=x: rows.T @ (rows @ x),
                "replace": replace_and_solve,
            },
            options.rounds,
        )
        fast["read"] = [2 * min(pair) for pair in zip(fast["sum"], fast["dot"], strict=True)]
        size = 2 * m * options.dim * 4 / 1e9
        report(m, "bandwidth, reading G", size / statistics.median(fast["read"]), "GB/s")
        report(m, "F^-1 x", 1000 * statistics.median(fast["solve"]), "ms")
        report(m, "F^-1 x, share of the bandwidth", ratio(fast, "read", "solve"), "", goal=0.8)
        report(m, "G^T (G x) as two torch products, share", ratio(fast, "read", "two gemv"), "")
        report(m, "replace a row and solve for it, share", ratio(fast, "read", "replace"), "")

        slow = {"plain": lambda rows=rows: rows @ rows.T, "set-up": lambda rows=rows: set_up(rows)}
        times = alternate(slow, max(3, options.rounds // 3))
        report(m, "set-up", statistics.median(times["set-up"]), "s")
        report(m, "set-up / plain G G^T", ratio(times, "set-up", "plain"), "", goal=1.5, at_least=False)
        if m <= options.recursion_up_to:
            del slow["plain"]
            times = alternate({**slow, "recursion": lambda rows=rows: recursion(rows)}, 3)
            report(m, "sequential recursion", statistics.median(times["recursion"]), "s")
            report(m, "recursion / set-up", ratio(times, "recursion", "set-up"), "", goal=10)
    print("\n".join(missed) or "goals met")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
