"""Cost of a sparse Newton step as n grows, and Sinkhorn-Newton-Sparse against POT's Sinkhorn to the same accuracy.

    OMP_NUM_THREADS=1 python scripts/bench/sinkhorn_newton.py    # needs POT (pip install 'fisherexp[ot]')

Random assignment, 3n entries kept. First part: median processor time of a step at the paper's η = 1200, with and
without its linear solver; the exponent is that between the smallest and the largest n. Second part: both algorithms in
this process, in alternation, until the marginals' L1 error is at most the tolerance; the ratio is the median over
rounds. Exits with 1 when a step without its solver grows faster than n^2.3, or when ours is not the faster one.
"""

import argparse
import math
import statistics
import sys
import time
import warnings
from pathlib import Path

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


def pot(problem: TransportInstance) -> tuple[torch.Tensor, int]:
    """The plan, and sweeps: doubled until the L1 error is small enough, since POT's own rule is another norm's."""
    sweeps, warmstart = 100, None
    total = 0
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of not having converged yet
            transport, log = ot.sinkhorn(
                *problem[:3],
                reg=1 / problem.eta,
                method="sinkhorn_log",
                stopThr=0,
                numItermax=sweeps,
                log=True,
                warmstart=warmstart,
            )
        total += sweeps
        if marginal_error(transport, problem) <= TOLERANCE:
            return transport, total
        warmstart = log["log_u"], log["log_v"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--steps", type=int, default=5, help="Newton steps timed at each size")
    parser.add_argument("--against-pot", type=int, nargs="+", default=[100], help="n of the second part, at eta = 4n")
    parser.add_argument("--rounds", type=int, default=3, help="of the second part")
    options = parser.parse_args()
    missed = []

    costs = {n: step_costs(n, options.steps) for n in options.sizes}
    for n, times in costs.items():
        print(f"n={n:<6}" + "   ".join(f"{name} {1000 * value:9.2f} ms" for name, value in times.items()), flush=True)
    small, large = min(costs), max(costs)
    for name in costs[small] if small < large else ():
        exponent = math.log(costs[large][name] / costs[small][name]) / math.log(large / small)
        print(f"{name:<22} n^{exponent:.2f} from {small} to {large}")
        if name == "step without solver" and exponent > EXPONENT:
            missed.append(f"{name} grows as n^{exponent:.2f}; the goal is n^{EXPONENT}")

    for n in options.against_pot:
        problem = random_assignment(n, eta=4.0 * n)
        ratios = []
        for _ in range(options.rounds):
            fast, state = seconds(lambda problem=problem: ours(problem))
            slow, (transport, sweeps) = seconds(lambda problem=problem: pot(problem))
            ratios.append(slow / fast)
        gap = (plan(state.x, state.y, problem) - transport).abs().max()
        ratio = statistics.median(ratios)
        print(
            f"n={n}, L1 error {TOLERANCE:g}: {state.sweeps} sweeps and {state.newton_steps} Newton steps {fast:.3f} s;"
        )
        print(f"  POT {sweeps} sweeps {slow:.2f} s; ratio {ratio:.1f}; plans differ by {gap:.1e}", flush=True)
        if ratio < 1:
            missed.append(f"POT is faster at n={n}: ratio {ratio:.2f}")
    sys.exit("; ".join(missed) or 0)


if __name__ == "__main__":
    main()
