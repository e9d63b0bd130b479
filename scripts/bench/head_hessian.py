"""Cost of the exact head-Hessian alignment penalty with its gradients, and of the published estimates of it.

    OMP_NUM_THREADS=1 python scripts/bench/head_hessian.py

Three domains of 32 samples, d = 512 features, softmax head with bias. Every candidate computes a penalty and
its gradients in features and head, in this process and in alternation; a ratio is the median over rounds of
that round's ratio. One thread is measured in process CPU time, more threads in wall time. Exits with 1 when
the exact penalty is less than 100 times cheaper than 300 Hutchinson probes, or 2 times than HGP by double
backward.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fisherexp.curvature.head_gradients import head_gradient_mean
from fisherexp.curvature.head_hessian import alignment_penalty, head_hessian_diagonal, head_hessian_product

GOALS = {"Hutchinson": 100, "HGP double backward": 2}


def spread(parts):
    """sum_e ||x_e - mean||^2."""
    stacked = torch.stack(parts)
    return (stacked - stacked.mean(0)).square().sum()


def exact(features, labels, weight, bias):
    return alignment_penalty([(h, F.linear(h, weight, bias)) for h in features])


def exact_diagonal(features, labels, weight, bias):
    return spread([head_hessian_diagonal(h, F.linear(h, weight, bias)) for h in features])


def closed_hgp(features, labels, weight, bias):
    """Hessian-gradient products in closed form; the center is that of the mean loss, as published."""
    heads = [(h, F.linear(h, weight, bias)) for h in features]
    gradients = [head_gradient_mean(*head, y) for head, y in zip(heads, labels, strict=True)]
    mean = torch.stack(gradients).mean(0)
    own = [head_hessian_product(*head, g) for head, g in zip(heads, gradients, strict=True)]
    center = torch.stack([head_hessian_product(*head, mean) for head in heads]).mean(0)
    return sum((hg - center).square().sum() for hg in own)


def losses(features, labels, weight, bias):
    """The loss of every domain, then their mean."""
    each = [F.cross_entropy(F.linear(h, weight, bias), y) for h, y in zip(features, labels, strict=True)]
    return [*each, torch.stack(each).mean()]


def hgp(features, labels, weight, bias):
    """||g|| d||g||/d theta by double backward, for every domain and the mean loss."""
    products = []
    for loss in losses(features, labels, weight, bias):
        gradient = torch.autograd.grad(loss, (weight, bias), create_graph=True)
        norm = torch.sqrt(sum(g.square().sum() for g in gradient))
        slope = torch.autograd.grad(norm, (weight, bias), create_graph=True)
        products.append(torch.cat([(norm * s).flatten() for s in slope]))
    *own, center = products
    return sum((hg - center).square().sum() for hg in own)


def hutchinson(features, labels, weight, bias, probes):
    """Diagonal of every domain's and of the mean loss's Hessian from fresh Rademacher probes."""
    diagonals = []
    for loss in losses(features, labels, weight, bias):
        gradient = torch.autograd.grad(loss, (weight, bias), create_graph=True)
        total = 0
        for _ in range(probes):
            signs = [torch.randint_like(g, 2) * 2 - 1 for g in gradient]
            images = torch.autograd.grad(gradient, (weight, bias), signs, create_graph=True)
            total = total + torch.cat([(z * hz).flatten() for z, hz in zip(signs, images, strict=True)])
        diagonals.append(total / probes)
    *own, center = diagonals
    return sum((d - center).square().sum() for d in own)


def candidates(classes, d, n, domains, probes):
    """Name -> callable that computes penalty and gradients."""
    torch.manual_seed(0)
    features = [torch.randn(n, d, requires_grad=True) for _ in range(domains)]
    labels = [torch.randint(0, classes, (n,)) for _ in range(domains)]
    weight = (torch.randn(classes, d) / d**0.5).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    problem = (features, labels, weight, bias)

    def with_gradients(penalty, *extra):
        return lambda: torch.autograd.grad(penalty(*problem, *extra), (*features, weight, bias))

    return {
        "exact": with_gradients(exact),
        "cross-entropy alone": with_gradients(lambda *p: losses(*p)[-1]),
        "exact diagonal": with_gradients(exact_diagonal),
        "HGP closed form": with_gradients(closed_hgp),
        "HGP double backward": with_gradients(hgp),
        "Hutchinson": with_gradients(hutchinson, probes),
    }


def measure(runs, rounds, clock):
    """Name -> seconds of every round; short runs are repeated within a round to be measurable."""
    repeats = {}
    for name, run in runs.items():
        run()
        start = clock()
        run()
        repeats[name] = max(1, int(0.02 / max(clock() - start, 1e-6)))
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            for _ in range(repeats[name]):
                run()
            times[name].append((clock() - start) / repeats[name])
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 7, 65, 345])
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    print(f"d={options.features}, 3 x 32 samples, {options.probes} probes, {threads} threads")
    print(f"{'C':>4} {'candidate':<22}{'ms':>10}{'x exact':>10}")
    missed = []
    for classes in options.classes:
        times = measure(candidates(classes, options.features, 32, 3, options.probes), options.rounds, clock)
        for name, seconds in times.items():
            ratio = statistics.median(t / e for t, e in zip(seconds, times["exact"], strict=True))
            print(f"{classes:>4} {name:<22}{1000 * statistics.median(seconds):>10.2f}{ratio:>10.2f}", flush=True)
            if ratio < GOALS.get(name, 0):
                missed.append(f"C={classes}: {name} only {ratio:.1f} times the exact penalty")
    print("\n".join(missed) or "goals met: " + ", ".join(f"{name} >= {goal}x" for name, goal in GOALS.items()))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
