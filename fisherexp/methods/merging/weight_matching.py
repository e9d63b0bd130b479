"""Weight matching: reorder the hidden units of networks of other seeds until their weights are most like the first's.

    max_π Σ_tensors ⟨W_A, π(W_B)⟩,   one layer's permutation at a time: a linear assignment;   θ = mean of A and π(B)s

Ainsworth et al., ICLR 2023, arXiv 2209.04836, whose code this follows: layers in random order, biases and the scales of
BatchNorm included, until a sweep gains nothing. Statistics of BatchNorm are taken anew on training images (see
batch_norm.py). The line from A to B is judged with and without matching; that its barrier falls comes from aligned
singular vectors rather than from a small distance (Ito et al., ICLR 2025, arXiv 2402.04051; see alignment.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fisherexp.config.types import Count
from fisherexp.methods.merging.alignment import alignment
from fisherexp.methods.merging.batch_norm import with_statistics
from fisherexp.methods.merging.merging import State, mean_of
from fisherexp.methods.merging.permutations import Permutations, Spec, identity, permuted, specification
from fisherexp.methods.method import Method
from fisherexp.ranks import over_ranks
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive

GAIN, SWEEPS = 1e-12, 100  # as published
PROBE = 1000  # training images for the statistics of BatchNorm


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


class WeightMatching(Method):
    """The mean of the source and of `others` sources of other seeds, matched to it.

    points: of the line to the first of them, on which the loss of the training part is measured. Its curves, barriers,
    distances and alignments, with and without matching, are in the outcome; `plot barrier` draws them.
    """

    paper = "Ainsworth et al., ICLR 2023, arXiv 2209.04836"
    scenarios = ("plain",)
    start = "source"
    needs = ("other_seeds",)

    def __init__(self, model: nn.Module, others: Count = 1, points: Count = 11) -> None:
        super().__init__(model)
        self.others, self.points = others, points
        self.automatic_optimization = False
        self.spec = specification(model)
        self.seed = 0
        self.probe: Any = None
        self.lines: dict[str, list[State]] = {}
        self.merged: State = {}
        self.losses: Tensor | None = None

    def batches(self, setting: Setting) -> Any:
        self.seed = derive("weight_matching", setting.seed)
        order = torch.randperm(len(setting.parts[self.fits_on]), generator=torch.Generator().manual_seed(self.seed))
        self.probe = setting.parts[self.fits_on].subset(order[:PROBE])
        return setting.loader(self.fits_on)

    def on_train_start(self) -> None:
        parameters = {name for name, _ in self.model.named_parameters()}
        states = [self.model.state_dict(), *self.given["other_seeds"]]
        first, *others = [{n: t.detach().clone().to(self.device) for n, t in s.items()} for s in states]
        weights = [{name: state[name] for name in parameters} for state in (first, *others)]
        aligned, agreements = [], []
        for other in weights[1:]:
            permutations, found = match(weights[0], other, self.spec, self.seed)
            aligned.append(permuted(other, self.spec, permutations))
            agreements.append(found)
        pairs = {"naive": weights[1], "matched": aligned[0]}
        shares = [i / (self.points - 1) for i in range(self.points)]
        self.lines = {
            kind: [self.with_statistics(mean_of([weights[0], other], [1 - s, s])) for s in shares]
            for kind, other in pairs.items()
        }
        self.merged = self.with_statistics(mean_of([weights[0], *aligned]))
        self.outcome = {
            "agreement": agreements,
            "distance": {kind: distance(weights[0], other) for kind, other in pairs.items()},
            "alignment": {
                kind: {str(t): alignment(weights[0], other, t) for t in (0.0, 0.3)} for kind, other in pairs.items()
            },
        }
        if self.losses is None:
            self.losses = torch.zeros(len(pairs), self.points + 1, dtype=torch.float64)
        self.losses = self.losses.to(self.device)

    def with_statistics(self, weights: Mapping[str, Tensor]) -> State:
        return with_statistics(self.model, dict(weights), self.probe.images.to(self.device))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.model.eval()
        with torch.no_grad():
            for row, line in enumerate(self.lines.values()):
                for column, state in enumerate(line):
                    logits = functional_call(self.model, state, images)
                    self.losses[row, column] += F.cross_entropy(logits, labels, reduction="sum")
        self.losses[:, -1] += len(labels)

    def on_train_end(self) -> None:
        totals = over_ranks({"losses": self.losses})["losses"].cpu()
        curves = (totals[:, :-1] / totals[:, -1:]).tolist()
        self.outcome["curve"] = dict(zip(self.lines, curves, strict=True))
        self.outcome["barrier"] = {kind: barrier(curve) for kind, curve in self.outcome["curve"].items()}
        self.model.load_state_dict(self.merged, strict=False)
        self.lines = {}

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["losses"] = self.losses.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.losses = checkpoint["losses"]
