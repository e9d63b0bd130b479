"""Logarithms of modified Bessel functions: time and error beside SciPy's where it has a result, error beside mpmath.

    OMP_NUM_THREADS=1 python scripts/bench/log_bessel.py

First part: for regions of (v, x) in which SciPy's scaled functions are finite, nanoseconds of a pair in bulk for both,
in alternation, and the largest error of the logarithm as a share of max(1, |log|), with mpmath as the truth. Second
part: where SciPy has no result. Exits with 1 when ours takes more than twice SciPy's time, has the larger error (beyond
1e-14), or an error above 2e-14 in the second part.
"""

import statistics
import sys
import time
from pathlib import Path

import mpmath
import numpy as np
import torch
from scipy.special import ive, kve

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fisherexp.special import log_ive, log_kve

PAIRS, CHECKED, ROUNDS = 200_000, 25, 5
SLOWER, ERROR, BEYOND = 2.0, 1e-14, 2e-14
# Ranges of v and of x; in the last SciPy underflows or overflows.
REGIONS = {
    "low": ((0.0, 12.0), (0.01, 20.0)),
    "small argument": ((0.0, 12.0), (1e-8, 0.1)),
    "large argument": ((0.0, 12.0), (100.0, 5000.0)),
    "middle": ((10.0, 60.0), (5.0, 100.0)),
    "large order": ((100.0, 400.0), (200.0, 2000.0)),
}
BEYOND_SCIPY = ((1023.0, 500.0), (4095.0, 2000.0), (16383.0, 9000.0), (150.0, 1e-3), (700.0, 40.0))
FUNCTIONS = {"I": (log_ive, ive, mpmath.besseli, -1), "K": (log_kve, kve, mpmath.besselk, 1)}


def logarithm(function, v: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.log(function(v, x))


def seconds(run, *given) -> float:
    start = time.process_time()
    run(*given)
    return time.process_time() - start


def truth(function, v: float, x: float, sign: int) -> mpmath.mpf:
    """log(e^(sign x) function(v, x)) to 40 digits; digits are doubled until two results agree."""
    found = None
    for digits in (60, 120, 240, 480):
        with mpmath.workdps(digits):
            value = mpmath.re(function(mpmath.mpf(v), mpmath.mpf(x)))
            before, found = found, mpmath.log(value) + sign * mpmath.mpf(x) if value > 0 else None
        if found is not None and before is not None and abs(found - before) < mpmath.mpf(10) ** -30:
            return found
    raise ArithmeticError(f"mpmath does not settle at v={v}, x={x}")


def error(got: float, true: mpmath.mpf) -> float:
    return float(abs(got - true) / max(1, abs(true)))


def main() -> int:
    failed = False
    draw = np.random.default_rng(0)
    print(f"{'':20}{'ns, ours':>10}{'ns, SciPy':>11}{'ratio':>8}{'error, ours':>14}{'error, SciPy':>14}")
    for name, (ours, theirs, exact, sign) in FUNCTIONS.items():
        for region, (orders, arguments) in REGIONS.items():
            v, x = draw.uniform(*orders, PAIRS), draw.uniform(*arguments, PAIRS)
            tensors = torch.from_numpy(v), torch.from_numpy(x)
            rounds = [(seconds(ours, *tensors), seconds(logarithm, theirs, v, x)) for _ in range(ROUNDS)]
            ratio = statistics.median(a / b for a, b in rounds)
            nano = [statistics.median(column) / PAIRS * 1e9 for column in zip(*rounds, strict=True)]
            worst = [0.0, 0.0]
            for a, b, both in zip(v[:CHECKED], x[:CHECKED], ours(*tensors)[:CHECKED].tolist(), strict=False):
                true = truth(exact, a, b, sign)
                worst = [max(worst[0], error(both, true)), max(worst[1], error(float(np.log(theirs(a, b))), true))]
            failed |= ratio > SLOWER or worst[0] > max(worst[1], ERROR)
            print(
                f"{name + ', ' + region:20}{nano[0]:10.0f}{nano[1]:11.0f}{ratio:8.2f}{worst[0]:14.1e}{worst[1]:14.1e}"
            )
    for name, (ours, theirs, exact, sign) in FUNCTIONS.items():
        for v, x in BEYOND_SCIPY:
            got = float(ours(v, x))
            off = error(got, truth(exact, v, x, sign))
            with np.errstate(all="ignore"):
                scipy = float(np.log(theirs(v, x)))
            failed |= off > BEYOND
            print(f"{name} at v = {v:g}, x = {x:g}: {got:.15g}, error {off:.1e}; SciPy {scipy:g}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
