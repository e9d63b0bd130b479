"""Time of one test-time step: ours, the same algorithm written plainly, and the least it can take.

    OMP_NUM_THREADS=1 python scripts/bench/test_time_adaptation.py            # ResNet-18 on 32×32, batches of 64 and
    200

The unit is one forward pass and one backward pass that only affine parameters of normalization layers ask for, batch
statistics, default memory layout. "plain" writes the published algorithm with autograd through the selection and,
for EATA, the penalty. All run in alternation in one process on the same batch, about half of it kept; figures are
medians over rounds of ratios of process CPU time. Exits with 1 when a step of ours takes more than 1.05 units, more
than 1.05 times its plain form (the noise of such ratios), or when a batch without kept samples costs a backward pass.
"""

import argparse
import copy
import statistics
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.curvature import Estimator, FisherDiagonal
from fisherexp.data.digits import Digits
from fisherexp.data.tensors import TensorSet
from fisherexp.methods.test_time_adaptation.anchor import AnchorImportance
from fisherexp.methods.test_time_adaptation.eata import EATA
from fisherexp.methods.test_time_adaptation.entropy import entropy, log_softmax
from fisherexp.methods.test_time_adaptation.eta import ETA
from fisherexp.methods.test_time_adaptation.norms import affine_parameters, use_batch_statistics
from fisherexp.methods.test_time_adaptation.tent import Tent
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.metrics.classification import ClassificationMetrics
from fisherexp.models.classifier import Classifier
from fisherexp.models.resnet import ResNet18
from fisherexp.scenarios.setting import Segment, Setting

GOAL, NOISE = 1.05, 1.05
RULE = UpdateRule("sgd", 1e-6, 0.9)
BETA = 1.0


def configured(model: nn.Module) -> nn.Module:
    """A copy of which affine parameters alone require gradients, with batch statistics."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for parameter in affine_parameters(model).values():
        parameter.requires_grad_(True)
    use_batch_statistics(model)
    return model


def least(model: nn.Module, images: Tensor):
    """One forward and one restricted backward pass: the unit."""
    model = configured(model)
    parameters = list(affine_parameters(model).values())

    def run() -> None:
        logits = model(images)
        torch.autograd.grad(logits, parameters, torch.ones_like(logits))

    return run


def plain(model: nn.Module, images: Tensor, margin: float | None, fisher: FisherDiagonal | None):
    """Tent (margin None), ETA (fisher None) or EATA, by autograd."""
    model = configured(model)
    moving = affine_parameters(model)
    origin = {name: p.detach().clone() for name, p in moving.items()}
    optimizer = RULE.build(moving.values())
    mean = torch.full((10,), 0.1)

    def run() -> None:
        p = model(images).softmax(1)
        entropies = -(p * p.log()).sum(1)
        if margin is not None:
            near = entropies < margin
            entropies, p = entropies[near], p[near]
            new = F.cosine_similarity(mean[None], p, dim=1).abs() < 2
            entropies = entropies[new]
            mean.mul_(0.9).add_(p[new].detach().mean(0), alpha=0.1)
            entropies = entropies * (margin - entropies.detach()).exp()
        loss = entropies.mean()
        if fisher is not None:
            for name, parameter in model.named_parameters():
                if name in fisher:
                    loss = loss + BETA * (fisher[name] * (parameter - origin[name]) ** 2).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def ours(method, images: Tensor, fisher: FisherDiagonal):
    """The step of a method, in a stream of that one batch."""
    method.given["fisher"] = fisher
    data = Digits(seed=0).load()
    data.input_shape = tuple(images.shape[1:])
    parts = {"stream": TensorSet(images, torch.zeros(len(images), dtype=torch.int64))}
    evaluation = lambda: ClassificationMetrics(("stream",))  # noqa: E731
    method.evaluate(Setting(data, parts, ("stream",), evaluation, segments=(Segment(),), stream_batch_size=len(images)))

    def run() -> None:
        with torch.enable_grad():
            method.adapt(images)

    return run


def ratio(one: list[float], other: list[float]) -> float:
    """Median over rounds of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 200])
    options = parser.parse_args()
    torch.manual_seed(0)
    backbone = ResNet18(64, input_shape=(3, 32, 32))
    model = Classifier(backbone, backbone.num_features, 10)
    failed = False
    for size in options.batches:
        images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8)
        with torch.no_grad():
            margin = entropy(log_softmax(configured(model)(images))).median().item()
        share = margin / torch.tensor(10.0).log().item()
        names = affine_parameters(model)
        estimator = Estimator("pseudo", "per_sample", "cross_entropy")
        fisher = FisherDiagonal({n: torch.rand_like(p) for n, p in names.items()}, estimator, 1)
        selection = (2.0, True, "kept", "everything")
        runs = {
            "least": least(model, images),
            "tent": ours(Tent(copy.deepcopy(model), RULE), images, fisher),
            "tent plain": plain(model, images, None, None),
            "eta": ours(ETA(copy.deepcopy(model), RULE, share, *selection), images, fisher),
            "eta plain": plain(model, images, margin, None),
            "eata": ours(
                EATA(copy.deepcopy(model), RULE, share, *selection, BETA, 0.0, AnchorImportance()), images, fisher
            ),
            "eata plain": plain(model, images, margin, fisher),
            "nothing kept": ours(ETA(copy.deepcopy(model), RULE, 0.0, *selection), images, fisher),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for round_number in range(options.rounds + 1):
            for name, run in list(runs.items())[:: 1 if round_number % 2 else -1]:  # no one always follows another
                begun = time.process_time()
                run()
                if round_number:  # the first one warms up
                    seconds[name].append(time.process_time() - begun)
        units = {name: ratio(seconds[name], seconds["least"]) for name in runs}
        print(f"batch {size}, unit {1e3 * statistics.median(seconds['least']):.0f} ms")
        for name in ("tent", "eta", "eata"):
            peer = ratio(seconds[name], seconds[f"{name} plain"])
            print(f"  {name:5} {units[name]:.3f} units, {peer:.3f} of its plain form")
            failed |= units[name] > GOAL or peer > NOISE
        print(f"  nothing kept: {units['nothing kept']:.3f} units")
        failed |= units["nothing kept"] > 0.75
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
