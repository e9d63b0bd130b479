"""SSD, both importances and the edit, against the official algorithm's loop in its plainest form.

    OMP_NUM_THREADS=1 python scripts/bench/unlearning.py                  # Fashion-MNIST, 60,000 images
    OMP_NUM_THREADS=1 python scripts/bench/unlearning.py --images 6000    # a part of them

The net is that of experiment=unlearning_fashion_mnist, after an epoch; class 3 is forgotten. The loop does a forward
and backward pass for each batch and sums the squared gradients: at the same estimator, so batches of one for per-sample
gradients. That loop is timed on `--singles` images and scaled to all of them, which is fair to it: its time is linear.
Both read the same tensors in memory, which is kind to the loop: the official one decodes and transforms image by image.
Ours uses the compiled kernel, which is built first if it can be; what was used is said. Process CPU time of one thread,
median of ratios over rounds in alternation. That both compute the same is checked in double precision, on the images of
`--singles`; how far rounding takes weights apart in single precision, where gradients nearly cancel, is said as well.
Exits with 1 when ours is not 10 times (per-sample) and 1.3 times (batches of 64) as fast, or a weight differs by more
than 1e-5.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.curvature.kernels import kernel
from fisherexp.data.batch import Batch
from fisherexp.methods.importance import Importance
from fisherexp.methods.unlearning.dampening import dampen_model
from fisherexp.runs.workbench import Workbench
from fisherexp.scenarios.setting import Setting

ALPHA_RELATIVE, LAMBDA = 0.5, 1.0
GOALS = {"per_sample": 10.0, "batch_mean": 1.3}
ESTIMATORS = {
    "per_sample": Importance(gradients="per_sample", batch_size=512),
    "batch_mean": Importance(gradients="batch_mean", batch_size=64, order="forget_apart"),
}


def plain_importance(model: nn.Module, batches: Iterable[Batch]) -> list[Tensor]:
    """Mean over batches of the squared gradient of the mean loss, by parameter."""
    sums, count = [torch.zeros_like(weight) for weight in model.parameters()], 0
    for batch in batches:
        model.zero_grad()
        F.cross_entropy(model(batch.inputs), batch.targets).backward()
        for total, weight in zip(sums, model.parameters(), strict=True):
            total += weight.grad.square()
        count += 1
    return [total / count for total in sums]


def plain_ssd(model: nn.Module, setting: Setting, importance: Importance, alpha: float) -> nn.Module:
    """The edit of the official code, of a copy of the model."""
    model = copy.deepcopy(model).eval()
    found = []
    for part in ("train", "forget"):
        if importance.gradients == "per_sample":
            found.append(plain_importance(model, setting.loader(part, batch_size=1)))
        else:
            found.append(plain_importance(model, importance.batches(setting, part)))
    with torch.no_grad():
        for weight, everything, forget in zip(model.parameters(), *found, strict=True):
            selected = forget > alpha * everything
            weight[selected] *= (LAMBDA * everything[selected] / forget[selected]).clamp(max=1)
    return model


def our_ssd(model: nn.Module, setting: Setting, importance: Importance, alpha: float) -> nn.Module:
    """The same by the accumulator and the edit of the method, of a copy of the model."""
    model = copy.deepcopy(model).eval()
    found = []
    for part in ("train", "forget"):
        accumulator = importance.accumulator(model, seed=0)
        for batch in importance.batches(setting, part, importance.batches_per_update):
            accumulator.update(batch.inputs, batch.targets)
        found.append(accumulator.result())
    dampen_model(model, found[1], found[0], alpha, LAMBDA)
    return model


def timed(work: Callable[[], nn.Module]) -> tuple[float, nn.Module]:
    """Process CPU seconds, and the result."""
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def first(bench: Workbench, images: int) -> Setting:
    """The scenario on the first images of the training set."""
    data = copy.copy(bench.data)
    data.train = data.train.subset(torch.arange(min(images, len(data.train))))
    return instantiate(bench.cfg.scenario, _convert_="all").setting(data, bench.cfg.seed)


def samples(setting: Setting) -> int:
    """How many go through the model for both importances."""
    return sum(len(setting.parts[part]) for part in ("train", "forget"))


def difference(model: nn.Module, other: nn.Module) -> float:
    """Of the weights that differ most."""
    return max((a - b).abs().max().item() for a, b in zip(model.parameters(), other.parameters(), strict=True))


def compare(model: nn.Module, name: str, whole: Setting, part: Setting, rounds: int) -> bool:
    """Print how much faster ours is, and how far the weights are apart. Returns whether both goals are met."""
    importance, alpha = ESTIMATORS[name], ALPHA_RELATIVE * len(whole.parts["train"]) / len(whole.parts["forget"])
    looped = part if name == "per_sample" else whole
    scale = samples(whole) / samples(looped)
    seconds = []
    for _ in range(rounds):
        ours, edited = timed(lambda: our_ssd(model, whole, importance, alpha))
        loop, expected = timed(lambda: plain_ssd(model, looped, importance, alpha))
        seconds.append((ours, scale * loop))
    if looped is part:
        edited = our_ssd(model, part, importance, alpha)
    double = copy.deepcopy(model).double()
    exact = difference(*(way(double, part, importance, alpha) for way in (our_ssd, plain_ssd)))
    ratio = statistics.median(loop / ours for ours, loop in seconds)
    ours, loop = (statistics.median(values) for values in zip(*seconds, strict=True))
    note = f" (scaled from {samples(looped):,} samples)" if scale > 1 else ""
    print(
        f"{name}, {samples(whole):,} samples: ours {ours:.1f} s, loop {loop:.1f} s{note}: {ratio:.2f} times as fast "
        f"(goal {GOALS[name]}); weights differ by {exact:.1e} at most, "
        f"in single precision by {difference(edited, expected):.1e}",
        flush=True,
    )
    return ratio >= GOALS[name] and exact <= 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--singles", type=int, default=1_000, help="images the loop with batches of one is timed on")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"convolutions: {kernel(True, torch.device('cpu'))[1]}")
    with tempfile.TemporaryDirectory() as outputs:
        config = ["experiment=unlearning_fashion_mnist", "training.epochs=1", "scenario.classes=[3]", "threads=1"]
        bench = Workbench(composed([*config, f"output_dir={outputs}", "progress=off"]))
        model = bench.method("source.method").model
        model.load_state_dict(bench.reference("source").tensors)
        whole, part = first(bench, options.images), first(bench, options.singles)
        met = [compare(model, name, whole, part, options.rounds) for name in ESTIMATORS]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
