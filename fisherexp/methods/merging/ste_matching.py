"""Matching by a straight-through estimator: learn which permutation makes the mean of two networks good.

    min_θ  L(½ (A + π(B))),   π = weight matching of B to θ;   the gradient passes π as if π(B) were θ

Ainsworth et al., ICLR 2023, arXiv 2209.04836, §3.3 of it. θ begins at A, so the first π is that of weight matching. As
there, SGD with momentum 0.9 and rate 0.01, and the best permutation met is kept: here by the loss of the mean on up to
1000 training images after each epoch. Batches are those of the data set (published: 1000 images, 250 epochs).
"""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fisherexp.config.types import Count, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.merging.batch_norm import MergedStatistics
from fisherexp.methods.merging.merging import State, mean_of
from fisherexp.methods.merging.permutations import Permutations, permuted, specification
from fisherexp.methods.merging.weight_matching import match
from fisherexp.methods.needs import OtherSeeds
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive

PROBE = 1000  # training images to evaluate a permutation on


class STEMatching(MergedStatistics):
    """epochs, lr, momentum: of the search for a permutation. The model's own weights are θ while it is fitted."""

    paper = "Ainsworth et al., ICLR 2023, arXiv 2209.04836"
    scenarios = ("plain",)
    start = "source"
    needs = (OtherSeeds(),)
    others = 1

    def __init__(self, epochs: Count = 20, lr: Positive = 0.01, momentum: Probability = 0.9, **options: Any) -> None:
        super().__init__(**options)
        self.epochs, self.lr, self.momentum = epochs, lr, momentum
        self.spec = specification(self.model)
        self.seed = 0
        self.probe: Any = None
        self.first: State = {}
        self.second: State = {}
        self.permutations: Permutations | None = None
        self.best: Permutations = {}
        self.losses: list[float] = []

    def batches(self, setting: Setting) -> Any:
        self.seed = derive("ste_matching", setting.seed)
        order = torch.randperm(len(setting.parts[self.fits_on]), generator=torch.Generator().manual_seed(self.seed))
        self.probe = setting.parts[self.fits_on].subset(order[:PROBE])
        return super().batches(setting)

    def setup(self, stage: str) -> None:
        if stage == "fit":  # before a saved state is restored: these are the weights of A
            state = self.model.state_dict()
            self.first = {name: tensor.clone() for name, tensor in state.items() if tensor.is_floating_point()}

    def on_train_start(self) -> None:
        self.first = {name: tensor.to(self.device) for name, tensor in self.first.items()}
        self.second = {name: self.given["other_seeds"][0][name].to(self.device) for name in self.first}
        if self.permutations is None:
            start = {name: self.first[name] for name, _ in self.model.named_parameters()}
            self.permutations, _ = match(start, self.second, self.spec, self.seed)
            self._evaluate()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        free = dict(self.model.named_parameters())
        now = {name: parameter.detach() for name, parameter in free.items()}
        self.permutations, _ = match(now, self.second, self.spec, self.seed, self.permutations)
        moving = permuted(self.second, self.spec, self.permutations)
        passed = {name: moving[name] + (free[name] - now[name]) for name in free}
        statistics = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        logits = functional_call(self.model, statistics | mean_of([passed, self.first]), batch.inputs)
        return F.cross_entropy(logits, batch.targets)

    def on_train_epoch_end(self) -> None:
        self._evaluate()

    def _evaluate(self) -> None:
        images, labels = self.probe.inputs.to(self.device), self.probe.targets.to(self.device)
        state = self._mean(self.permutations)
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            loss = F.cross_entropy(functional_call(self.model, state, images), labels).item()
        self.model.train(training)
        if not self.losses or loss < min(self.losses):
            self.best = dict(self.permutations)
        self.losses.append(loss)

    def _mean(self, permutations: Permutations) -> State:
        return self.with_statistics(mean_of([self.first, permuted(self.second, self.spec, permutations)]))

    def on_train_end(self) -> None:
        self.model.load_state_dict(self._mean(self.best), strict=False)
        self.outcome = {"losses": self.losses, "best_epoch": self.losses.index(min(self.losses))}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=self.momentum)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["matching"] = {
            "permutations": dict(self.permutations),
            "best": dict(self.best),
            "losses": list(self.losses),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        found = checkpoint["matching"]
        self.permutations, self.best, self.losses = found["permutations"], found["best"], found["losses"]
