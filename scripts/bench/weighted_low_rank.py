"""One layer's low-rank correction as it grows: root of the inputs' second moment, exact and randomized SVD, and peft's.

    OMP_NUM_THREADS=1 python scripts/bench/weighted_low_rank.py    # widths 128 to 1024
    python scripts/bench/weighted_low_rank.py --widths 2048 --rounds 1

A weight (m, m) rounded to 3 bits, inputs whose second moment has eigenvalues 1 / i in a random basis, rank 32. Times
are processor times on one thread, medians over rounds in turns; `constant` is time over m³, in nanoseconds: where the
work is cubic it stays. The excess of the randomized SVD is how much more output error it leaves than the exact one.
`peft` is the decomposition within its LoftQ (peft.utils.loftq_utils), which has no weights, beside ours without; the
whole of LoftQ there, and GPTQModel's EoRA, ask for a GPU.
"""

import argparse
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fisherexp.quantization import Integer, psd_root, weighted_low_rank

RANK = 32


def problem(width):
    """Rounding error D (m, m) and E[x xᵀ], float64."""
    torch.manual_seed(0)
    weight = torch.randn(width, width, dtype=torch.float64) / width**0.5
    basis = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    moment = (basis / torch.arange(1, width + 1)) @ basis.T
    return weight - Integer(3, 32)(weight), (moment + moment.T) / 2


def times(runs, rounds):
    """Median seconds of each; the results of the last round."""
    spent, made = {name: [] for name in runs}, {}
    for _ in range(rounds):
        for name, run in runs.items():
            begun = time.process_time()
            made[name] = run()
            spent[name].append(time.process_time() - begun)
    return {name: statistics.median(each) for name, each in spent.items()}, made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for width in options.widths:
        lost, moment = problem(width)
        root = psd_root(moment)
        weighted = lost @ root.root
        runs = {
            "whole step": lambda lost=lost, moment=moment: weighted_low_rank(lost, RANK, psd_root(moment)),
            "root alone": lambda moment=moment: psd_root(moment),
            "exact SVD": lambda weighted=weighted: weighted_low_rank(weighted, RANK),
            "randomized SVD": lambda weighted=weighted: weighted_low_rank(weighted, RANK, svd="randomized"),
            "whole step, randomized": lambda lost=lost, moment=moment: weighted_low_rank(
                lost, RANK, psd_root(moment), svd="randomized"
            ),
        }
        if find_spec("peft"):
            from peft.utils.loftq_utils import _low_rank_decomposition as of_peft

            runs["ours, float32, no weights"] = lambda lost=lost: weighted_low_rank(lost.float(), RANK)
            runs["peft, float32, no weights"] = lambda lost=lost: of_peft(lost.float(), reduced_rank=RANK)
        spent, made = times(runs, options.rounds)
        best = (weighted - made["exact SVD"][0] @ made["exact SVD"][1]).norm()
        for name, seconds in spent.items():
            line = f"m={width:<5} {name:<27}{1000 * seconds:>9.1f} ms  constant {1e9 * seconds / width**3:>6.2f} ns"
            if name == "randomized SVD":
                excess = float((weighted - made[name][0] @ made[name][1]).norm() / best) - 1
                line += f"  exact / this {spent['exact SVD'] / seconds:.1f}, excess {100 * excess:.3f} %"
            print(line, flush=True)


if __name__ == "__main__":
    main()
