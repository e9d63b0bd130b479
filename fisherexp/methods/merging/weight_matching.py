"""Weight matching: reorder the hidden units of networks of other seeds until their weights are most like the first's.

    max_π Σ_tensors ⟨W_A, π(W_B)⟩,   one layer's permutation at a time: a linear assignment;   θ = mean of A and π(B)s

Ainsworth et al., ICLR 2023, arXiv 2209.04836, whose code this follows: layers in random order, biases and the scales of
BatchNorm included, until a sweep gains nothing. Statistics of BatchNorm are taken anew on training images (see
batch_norm.py), unless batch_norm=average. The line from A to B is evaluated with and without matching; that its barrier
falls comes from aligned singular vectors rather than from a small distance (Ito et al., ICLR 2025, arXiv 2402.04051;
see alignment.py).
"""

from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fisherexp.config.types import Count
from fisherexp.data.batch import Batch
from fisherexp.methods.merging.alignment import alignment
from fisherexp.methods.merging.batch_norm import MergedStatistics
from fisherexp.methods.merging.merging import State, mean_of
from fisherexp.methods.merging.permutations import Permutations, Spec, identity, permuted, specification
from fisherexp.methods.needs import OtherSeeds
from fisherexp.ranks import over_ranks
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive

GAIN, SWEEPS = 1e-12, 100  # as published


def match(
    first: State, second: State, spec: Spec, seed: int, start: Permutations | None = None
) -> tuple[Permutations, list[float]]:
    """Permutations of `second` that make it most like `first`, both parameters by name, and the agreement
    Σ ⟨W_A, π(W_B)⟩ after each sweep. start: where to begin, by default without reordering."""
    permutations = dict(start or identity(second, spec))
    generator = torch.Generator().manual_seed(seed)
    names, agreements = list(permutations), []
    for _ in range(SWEEPS):
        gained = False
        for number in torch.randperm(len(names), generator=generator).tolist():
            which = names[number]
            similar = _similarities(first, second, spec, permutations, which).cpu().numpy()
            rows, columns = linear_sum_assignment(similar, maximize=True)
            now = similar[rows, permutations[which].numpy()].sum()
            if similar[rows, columns].sum() > now + GAIN:
                permutations[which], gained = torch.from_numpy(columns), True
        agreements.append(agreement(first, permuted(second, spec, permutations)))
        if not gained:
            break
    return permutations, agreements


def _similarities(first: State, second: State, spec: Spec, permutations: Permutations, which: str) -> Tensor:
    """(n, n): what unit j of the second adds to the agreement in the place of unit i, the other layers as they are."""
    touched = {name: axes for name, axes in spec.items() if which in axes and name in first}
    others = permuted({name: second[name] for name in touched}, spec, permutations, but=which)
    total = 0.0
    for name, axes in touched.items():
        one, other = (_rows(state[name], axes.index(which)) for state in (first, others))
        total = total + one @ other.T
    return total


def _rows(tensor: Tensor, axis: int) -> Tensor:
    """(n, everything else): what belongs to each unit of an axis, in float64."""
    return tensor.double().movedim(axis, 0).reshape(tensor.shape[axis], -1)


def agreement(first: State, second: State) -> float:
    """Σ_tensors ⟨W_A, W_B⟩."""
    return sum((tensor.double() * second[name].double()).sum().item() for name, tensor in first.items())


def distance(first: State, second: State) -> float:
    """Euclidean distance of all parameters."""
    return sum((tensor.double() - second[n].double()).square().sum().item() for n, tensor in first.items()) ** 0.5


def barrier(losses: list[float]) -> float:
    """The most by which the loss at evenly spaced points of a line exceeds the line between its ends."""
    steps = len(losses) - 1
    return max(loss - losses[0] - (losses[-1] - losses[0]) * i / steps for i, loss in enumerate(losses))


class WeightMatching(MergedStatistics):
    """The mean of the source and of `others` sources of other seeds, matched to it.

    points: of a line between two networks, on which the loss of the training part is measured: from the source to the
    first other one ('naive', and 'matched' to the source), and between the first two others as each is matched to the
    source ('others'). Curves, barriers, distances and alignments are in the outcome, and the training accuracy of the
    mean of all networks, naive and matched; `plot barrier` draws the curves.
    """

    paper = "Ainsworth et al., ICLR 2023, arXiv 2209.04836"
    scenarios = ("plain",)
    start = "source"
    steps_itself = True
    needs = (OtherSeeds(),)

    def __init__(self, others: Count = 1, points: Count = 11, **options: Any) -> None:
        super().__init__(**options)
        self.others, self.points = others, points
        self.spec = specification(self.model)
        self.seed = 0
        self.lines: dict[str, list[State]] = {}
        self.means: dict[str, State] = {}
        self.totals: dict[str, Tensor] = {}

    def batches(self, setting: Setting) -> Any:
        self.seed = derive("weight_matching", setting.seed)
        super().batches(setting)
        return setting.loader(self.fits_on)

    def on_train_start(self) -> None:
        first, *others = [self.floating(s) for s in (self.model.state_dict(), *self.given["other_seeds"])]
        weights = {name: first[name] for name, _ in self.model.named_parameters()}
        aligned, agreements = [], []
        for other in others:
            permutations, found = match(weights, {name: other[name] for name in weights}, self.spec, self.seed)
            aligned.append(permuted(other, self.spec, permutations))
            agreements.append(found)
        pairs = {"naive": (first, others[0]), "matched": (first, aligned[0])}
        self.outcome = {
            "agreement": agreements,
            "distance": {kind: distance(weights, other) for kind, (_, other) in pairs.items()},
            "alignment": {
                kind: {str(t): alignment(weights, other, t) for t in (0.0, 0.3)} for kind, (_, other) in pairs.items()
            },
        }
        if len(aligned) > 1:
            pairs["others"] = (aligned[0], aligned[1])
        shares = [i / (self.points - 1) for i in range(self.points)]
        self.lines = {
            kind: [self.with_statistics(mean_of(pair, [1 - s, s])) for s in shares] for kind, pair in pairs.items()
        }
        self.means = {
            kind: self.with_statistics(mean_of([first, *states]))
            for kind, states in (("naive", others), ("matched", aligned))
        }
        if not self.totals:
            zeros = {"losses": (len(pairs), self.points), "correct": (len(self.means),), "seen": ()}
            self.totals = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in zeros.items()}
        self.totals = {name: total.to(self.device) for name, total in self.totals.items()}

    def floating(self, state: State) -> State:
        """Parameters and statistics, on the method's device."""
        return {n: t.detach().clone().to(self.device) for n, t in state.items() if t.is_floating_point()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.model.eval()
        with torch.no_grad():
            for row, line in enumerate(self.lines.values()):
                for column, state in enumerate(line):
                    logits = functional_call(self.model, state, batch.inputs)
                    self.totals["losses"][row, column] += F.cross_entropy(logits, batch.targets, reduction="sum")
            for number, state in enumerate(self.means.values()):
                right = functional_call(self.model, state, batch.inputs).argmax(1) == batch.targets
                self.totals["correct"][number] += right.sum()
        self.totals["seen"] += batch.size

    def on_train_end(self) -> None:
        totals = {name: total.cpu() for name, total in over_ranks(self.totals).items()}
        curves = (totals["losses"] / totals["seen"]).tolist()
        accuracies = (100 * totals["correct"] / totals["seen"]).tolist()
        self.outcome["curve"] = dict(zip(self.lines, curves, strict=True))
        self.outcome["barrier"] = {kind: barrier(curve) for kind, curve in self.outcome["curve"].items()}
        self.outcome["mean_accuracy"] = dict(zip(self.means, accuracies, strict=True))
        self.model.load_state_dict(self.means["matched"], strict=False)
        self.lines, self.means = {}, {}

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["totals"] = {name: total.clone() for name, total in self.totals.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.totals = checkpoint["totals"]
