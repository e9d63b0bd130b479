"""Data selection by importance: bytes per second, ours against the authors' package, in one process each.

    OMP_NUM_THREADS=1 python scripts/bench/dsir.py    # the package: pip install 'fisherexp[peers]'

The pool is Python's standard library in pieces; both fit their n-gram models, weigh every text and choose a quarter.
Processor time, in alternation; the ratio is the median over rounds. Exits with 1 where ours is the slower one, or where
weights differ.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fisherexp.data.hashed_ngrams import bucket
from fisherexp.methods.statistics.dsir import Dsir
from fisherexp.problems.text_selection import CodeSelection

ROUNDS = 3


def ours(problem: CodeSelection) -> tuple[float, np.ndarray]:
    bucket.cache_clear()
    begun = time.process_time()
    method = Dsir(sampling="top")
    method.begin(problem, 0)
    while not method.done:
        method.step()
    method.solution()
    return time.process_time() - begun, np.asarray(method.scores)


def theirs(files: dict[str, Path], count: int) -> tuple[float, np.ndarray]:
    from data_selection import HashedNgramDSIR

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        begun = time.process_time()
        dsir = HashedNgramDSIR([str(files["raw"])], [str(files["target"])], f"{folder}/cache", num_proc=1)
        dsir.fit_importance_estimator(num_tokens_to_fit="all")
        dsir.compute_importance_weights()
        dsir.resample(f"{folder}/out", count, f"{folder}/resampled", top_k=True)
        spent = time.process_time() - begun
        return spent, np.load(f"{folder}/cache/log_importance_weights/0.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=800)
    options = parser.parse_args()
    problem = CodeSelection(pool=options.pool).load(0)
    with tempfile.TemporaryDirectory() as folder:
        files = {part: Path(folder, f"{part}.jsonl") for part in ("raw", "target")}
        for part, file in files.items():
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in problem.texts(part)))
        size = len(problem.instance["raw.bytes"])
        ratios, gap = [], 0.0
        for _ in range(ROUNDS):
            fast, mine = ours(problem)
            try:
                slow, found = theirs(files, options.pool // 4)
            except ImportError:
                print(f"{size / 1e6:.2f} MB: ours {size / fast / 1e6:.2f} MB/s; data-selection is not installed")
                return
            ratios.append(slow / fast)
            gap = max(gap, float(np.abs(mine - found).max()))
    ratio = statistics.median(ratios)
    print(f"{size / 1e6:.2f} MB: ours {size / fast / 1e6:.2f} MB/s, data-selection {size / slow / 1e6:.2f} MB/s;")
    print(f"  ratio {ratio:.1f}; weights differ by {gap:.1e}")
    sys.exit(f"data-selection is faster, or differs: ratio {ratio:.2f}, {gap:.1e}" if ratio < 1 or gap > 1e-6 else 0)


if __name__ == "__main__":
    main()
