"""Cost of a sparse Newton step as n grows, and Sinkhorn-Newton-Sparse against POT's Sinkhorn to the same accuracy.

    OMP_NUM_THREADS=1 python scripts/bench/sinkhorn_newton.py    # needs POT (pip install 'fisherexp[ot]')

Random assignment, 3n entries kept. First part: median processor time of a step at the paper's η = 1200, with and
without its linear solver; the exponent is that between the smallest and the largest n. Second part: both algorithms in
this process, in alternation, until the marginals' L1 error is at most the tolerance; the ratio is the median over
rounds. POT is stopped after --limit seconds; then the error that it has reached is printed, and the ratio is a lower
bound. Exits with 1 when a step without its solver grows faster than n^2.3, or when ours is not the faster one.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import ot
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fisherexp.data.transport import TransportInstance, random_assignment
from fisherexp.methods.numerics.sinkhorn import sinkhorn_sweep
from fisherexp.methods.numerics.sinkhorn_newton import finished, newton_step, sinkhorn_newton_step
from fisherexp.methods.numerics.transport_solver import TransportState, zero_potentials
from fisherexp.problems.entropic_transport import marginal_error, plan

WARMUP = 20
KEEP = 3  # entries of the plan per point
EXPONENT = 2.3  # of the growth; 2 and the caches
TOLERANCE = 1e-6
ENTRIES_PER_CALL = 2e8  # of POT's plan, summed over the sweeps of a call: some seconds


def seconds(run):
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def step_costs(n: int, steps: int) -> dict[str, float]:
    """Median seconds of a sweep and of Newton steps, one of them with a single iteration of its linear solver."""
    problem = random_assignment(n, eta=1200.0)
    state = zero_potentials(problem)
    times = {"sweep": [], "step": [], "step without solver": []}
    for _ in range(WARMUP):
        spent, state = seconds(lambda state=state: sinkhorn_sweep(state, problem))
        times["sweep"].append(spent)
    for _ in range(steps):
        bare, _ = seconds(lambda state=state: newton_step(state, problem, keep=KEEP * n, cg_tolerance=1.0))
        spent, (state, _) = seconds(lambda state=state: newton_step(state, problem, keep=KEEP * n))
        times["step"].append(spent)
        times["step without solver"].append(bare)
    return {name: statistics.median(values) for name, values in times.items()}


def ours(problem: TransportInstance) -> TransportState:
    state = zero_potentials(problem)
    while not finished(state, problem, TOLERANCE):
        state = sinkhorn_newton_step(state, problem, WARMUP, keep=KEEP * len(problem.a))
    return state


class Reached(NamedTuple):
    """What POT has after `sweeps` of them: its plan, and the L1 error of the plan's marginals."""

    plan: torch.Tensor
    error: float
    sweeps: int


def pot(problem: TransportInstance, limit: float) -> Reached:
    """Until the error is small enough or `limit` processor seconds have passed; asked between calls of at most a
    hundred sweeps, since POT's own rule is another norm's."""
    sweeps = math.ceil(min(100, ENTRIES_PER_CALL / problem.cost.numel()))
    total, warmstart, start = 0, None, time.process_time()
    while True:
        transport, log = ot.sinkhorn(
            *problem[:3],
            reg=1 / problem.eta,
            method="sinkhorn_log",
            stopThr=0,
            numItermax=sweeps,
            log=True,
            warn=False,  # of not having converged yet
            warmstart=warmstart,
        )
        total += sweeps
        error = float(marginal_error(transport, problem))
        if error <= TOLERANCE or time.process_time() - start > limit:
            return Reached(transport, error, total)
        warmstart = log["log_u"], log["log_v"]


def compared(n: int, rounds: int, limit: float) -> tuple[float, bool]:
    """Prints both; ours in seconds, and whether POT was there earlier. Medians over rounds."""
    problem = random_assignment(n, eta=4.0 * n)
    times, ratios = [], []
    for _ in range(rounds):
        fast, state = seconds(lambda: ours(problem))
        slow, theirs = seconds(lambda: pot(problem, limit))
        times.append(fast)
        ratios.append(slow / fast)
    ratio, transport = statistics.median(ratios), plan(state.x, state.y, problem)
    print(
        f"n={n}: {state.sweeps} sweeps and {state.newton_steps} Newton steps, {statistics.median(times):.2f} s, to an "
        f"L1 error of {float(marginal_error(transport, problem)):.1e}"
    )
    said = f"  POT {theirs.sweeps} sweeps, {slow:.1f} s, to {theirs.error:.1e}; "
    reached = theirs.error <= TOLERANCE
    if reached:
        said += f"ratio {ratio:.1f}; plans differ by {float((transport - theirs.plan).abs().max()):.1e}"
    else:
        said += f"stopped; ratio more than {ratio:.1f}"
    print(said, flush=True)
    return statistics.median(times), reached and ratio < 1


def growth(large: float, small: float, n: tuple[int, int]) -> float:
    """The exponent of what is `small` at the first n and `large` at the second."""
    return math.log(large / small) / math.log(n[1] / n[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--steps", type=int, default=5, help="Newton steps timed at each size")
    parser.add_argument("--against-pot", type=int, nargs="+", default=[100], help="n of the second part, at eta = 4n")
    parser.add_argument("--rounds", type=int, default=3, help="of the second part")
    parser.add_argument("--limit", type=float, default=240.0, help="processor seconds that POT gets at each size")
    options = parser.parse_args()
    missed = []

    costs = {n: step_costs(n, options.steps) for n in options.sizes}
    for n, times in costs.items():
        print(f"n={n:<6}" + "   ".join(f"{name} {1000 * value:9.2f} ms" for name, value in times.items()), flush=True)
    small, large = min(costs), max(costs)
    for name in costs[small] if small < large else ():
        exponent = growth(costs[large][name], costs[small][name], (small, large))
        print(f"{name:<22} n^{exponent:.2f} from {small} to {large}")
        if name == "step without solver" and exponent > EXPONENT:
            missed.append(f"{name} grows as n^{exponent:.2f}; the goal is n^{EXPONENT}")

    whole = {n: compared(n, options.rounds, options.limit) for n in options.against_pot}
    missed += [f"POT is faster at n={n}" for n, (_, earlier) in whole.items() if earlier]
    small, large = min(whole), max(whole)
    if small < large:
        exponent = growth(whole[large][0], whole[small][0], (small, large))
        print(f"ours, to the end: n^{exponent:.2f} from {small} to {large}")
    sys.exit("; ".join(missed) or 0)


if __name__ == "__main__":
    main()
