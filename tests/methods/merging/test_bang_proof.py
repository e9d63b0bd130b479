"""Small-scale proof of spurious feature diversification (Lin et al., ICLR 2024, arXiv 2309.17230): digits with 32
colored patches, each of which has a color of its own for every class, replaced by that of a random class with
probability p under shift. `pytest -m proof -s` prints the figures.

Validation images choose α, and chose the length and rate of fine-tuning with seed 0 out of four.
"""

import copy
import statistics

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call

from fisherexp.data.batch import Batch
from fisherexp.methods.merging.bang import SmoothedMixup
from fisherexp.methods.merging.merging import mean_of
from fisherexp.methods.recipe import Recipe

pytestmark = pytest.mark.proof

PATCHES, COPIES = 32, 5  # COPIES: of every image under shift, each with other patches
FIRST, SECOND = range(16), range(16, 32)
SHIFTS = (0.75, 0.85, 0.9)
FINE_TUNED = {"plain": (0.0, 0.0), "smoothed": (0.0, 0.2), "bang": (1.0, 0.2)}  # mixup's α, label smoothing


class Patched:
    """1000 digits to train on, 400 to choose on and 397 to test on, (B, 64 + 3 · 32) with the digit at contrast 0.3."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        digits, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=self.generator)
        digits, labels = 0.3 * torch.tensor(digits / 16).float()[order], torch.tensor(labels)[order]
        sizes = [1000, 400, len(labels) - 1400]
        names = ("train", "validation", "test")
        self.parts = dict(zip(names, zip(digits.split(sizes), labels.split(sizes), strict=True), strict=True))
        self.colors = torch.rand(PATCHES, 10, 3, generator=self.generator)

    def part(self, name: str, p: float = 0.0, random: range = range(0), copies: int = 1) -> tuple[Tensor, Tensor]:
        """A part with its patches; those in `random` tell nothing. Random ones, not masked: a patch of zeros would give
        no gradient, and fine-tuning would forget nothing."""
        digits, labels = (tensor.repeat_interleave(copies, 0) for tensor in self.parts[name])
        replaced = torch.full((PATCHES,), p)
        replaced[list(random)] = 1.0
        swap = torch.rand(len(labels), PATCHES, generator=self.generator) < replaced
        shown = torch.where(swap, torch.randint(10, swap.shape, generator=self.generator), labels[:, None])
        return torch.cat([digits, self.colors[torch.arange(PATCHES), shown].flatten(1)], 1), labels


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64 + 3 * PATCHES, 128), nn.ReLU(), nn.Linear(128, 10))


def trained(
    model: nn.Module, part: tuple[Tensor, Tensor], seed: int, lr: float, alpha: float = 0.0, epsilon: float = 0.0
) -> nn.Module:
    """20 epochs of Adam on a copy."""
    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    method = SmoothedMixup(model=model, training=Recipe(), alpha=alpha, epsilon=epsilon)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    images, labels = part
    for _ in range(20):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            method.loss(Batch(images[batch], labels[batch])).backward()
            optimizer.step()
    return model


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def figures(seed: int) -> dict[str, float]:
    data, found = Patched(seed), {}
    start = trained(network(seed), data.part("train", random=SECOND), seed, 1e-3)
    other = trained(network(seed + 100), data.part("train", random=FIRST), seed, 1e-3)
    with torch.no_grad():
        for p in SHIFTS:
            images, labels = data.part("test", p, copies=COPIES)
            one, two = start(images), other(images)
            right = [logits.argmax(1) == labels for logits in (one, two, one + two)]
            found[f"{p} single"] = max(accuracy(one, labels), accuracy(two, labels))
            found[f"{p} ensemble"] = accuracy(one + two, labels)
            found[f"{p} one of them times 10"] = accuracy(10 * one + two, labels)
            found[f"{p} right where both are wrong"] = 100 * (~right[0] & ~right[1] & right[2]).double().mean().item()
    chosen_on, evaluated = (data.part(name, 0.85, copies=COPIES) for name in ("validation", "test"))
    fresh = data.part("train", random=FIRST)
    for name, (alpha, epsilon) in FINE_TUNED.items():
        tuned = trained(start, fresh, seed + 200, 3e-3, alpha, epsilon)
        ends = [dict(model.named_parameters()) for model in (start, tuned)]
        line = [mean_of(ends, [1 - step / 10, step / 10]) for step in range(11)]
        with torch.no_grad():
            chosen, test = (
                [accuracy(functional_call(start, state, images), labels) for state in line]
                for images, labels in (chosen_on, evaluated)
            )
            found[f"{name} confidence"] = 100 * tuned(evaluated[0]).softmax(1).amax(1).mean().item()
        best = max(range(11), key=chosen.__getitem__)
        found |= {"start": test[0], f"{name} fine-tuned": test[-1]}
        found |= {f"{name} merged": test[best], f"{name} alpha": best / 10}
    return found


@pytest.fixture(scope="module")
def means() -> dict[str, float]:
    runs = [figures(seed) for seed in (0, 1, 2)]
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"\n{name}: {statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}", end="")
    return {name: statistics.fmean(run[name] for run in runs) for name in runs[0]}


@pytest.mark.parametrize("p", SHIFTS)
def test_different_spurious_features_help_under_shift(means, p):
    """The ensemble is right where both are wrong, and far ahead of the better one: 10 points are about half of what
    doubling the features is worth. One model ten times as confident loses most of it."""
    gain = means[f"{p} ensemble"] - means[f"{p} single"]
    assert gain >= 10
    assert means[f"{p} right where both are wrong"] >= 1
    assert means[f"{p} one of them times 10"] - means[f"{p} single"] <= 0.3 * gain


def test_in_weight_space_a_smoothed_model_gains(means):
    """Label smoothing makes the fine-tuned model less sure, and the line to the start then helps by more than the
    deviation over seeds; that of a plain one is not behind its ends."""
    assert means["plain confidence"] - means["smoothed confidence"] >= 20
    for name in ("smoothed", "bang"):
        assert means[f"{name} merged"] - max(means["start"], means[f"{name} fine-tuned"]) >= 1.5
    assert means["plain merged"] >= max(means["start"], means["plain fine-tuned"]) - 0.5
