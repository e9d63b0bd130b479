"""Streamed low-rank transformers against the plain way: seconds of a forward pass, and memory of activations.

    OMP_NUM_THREADS=1 python scripts/bench/streaming.py                # width 384, 6 layers, sequences of 128 and 512
    OMP_NUM_THREADS=1 python scripts/bench/streaming.py --tile 64

Both run in this process in alternation; the ratio is the median over rounds of that round's ratio. One thread is
measured in processor time, more threads in wall time. Exits with 1 when a streamed pass takes more than 1.1 times the
plain one's time or does not need less memory.
"""

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fisherexp.metrics.live_memory import LiveMemory
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.streaming import factorize, plain, stream, streamable


def timed(model, tokens):
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    model(tokens)
    return clock() - start


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--rank", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    missed = []
    print(f"threads={torch.get_num_threads()}, torch {torch.__version__}, {vars(options)}")
    for length in options.lengths:
        torch.manual_seed(0)
        model = CharGPT(options.dim, options.depth, options.heads, input_shape=(length,), vocabulary=64).eval()
        names = [name for kinds in streamable(model).values() for kind in kinds for name in kind]
        factors = factorize(model, dict.fromkeys(names, options.rank))
        models = {"dense": model, "plain": copy.deepcopy(model), "streamed": copy.deepcopy(model)}
        plain(models["plain"], factors)
        stream(models["streamed"], factors, options.tile, options.at_once)
        tokens = torch.randint(64, (options.batch, length))
        peaks = {}
        for name, each in models.items():
            with LiveMemory() as memory:
                each(tokens)
            peaks[name] = memory.peak / 2**20
        times = {name: [] for name in models}
        for _ in range(options.rounds):
            for name, each in models.items():
                times[name].append(timed(each, tokens))
        ratio = statistics.median(s / p for s, p in zip(times["streamed"], times["plain"], strict=True))
        for name in models:
            print(f"T={length:<5} {name:<9} {1000 * statistics.median(times[name]):8.1f} ms {peaks[name]:8.2f} MiB")
        print(f"T={length:<5} streamed / plain: time {ratio:.3f}, memory {peaks['streamed'] / peaks['plain']:.3f}")
        if ratio > 1.1:
            missed.append(f"T={length}: time {ratio:.3f} > 1.1")
        if peaks["streamed"] >= peaks["plain"]:
            missed.append(f"T={length}: no less memory")
    print("\n".join(missed) or "goals met")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
