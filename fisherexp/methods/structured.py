"""Fishers with more structure than a diagonal, as artefacts: Kronecker factors, and gradients of a low-rank one."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from fisherexp.config.types import Count, Positive
from fisherexp.curvature import KFAC, KFACAccumulator, LowRankAccumulator, LowRankFisher
from fisherexp.data.composite import Chained
from fisherexp.methods.curvature import Curvature
from fisherexp.scenarios.setting import Setting

# Images sent along together; gradients are taken of `gradient_batch` of them.
TOGETHER = 64


@dataclass(frozen=True)
class KroneckerFactors(Curvature):
    """KFAC over all training data (see fisherexp.curvature). batch_size: a matter of speed and memory."""

    kind: ClassVar[str] = "kfac"
    result: ClassVar[type] = KFAC
    without_effect: ClassVar[dict[str, str]] = {"batch_size": "a matter of speed and memory"}

    labels: Literal["empirical", "pseudo", "sampled", "expected"] = "expected"
    approximation: Literal["expand", "reduce"] = "expand"
    batch_size: Count = 128

    def key(self) -> dict[str, Any]:
        return {"labels": self.labels, "approximation": self.approximation}

    def batches(self, setting: Setting, part: str, batches_per_update: int = 1) -> Any:
        return setting.loader(part, shuffle=False, batch_size=self.batch_size)

    def accumulator(self, model: nn.Module, seed: int, likelihood: str = "cross_entropy") -> KFACAccumulator:
        return KFACAccumulator(model, approximation=self.approximation, labels=self.labels, loss=likelihood, seed=seed)


@dataclass(frozen=True)
class GradientRows(Curvature):
    """A low-rank Fisher of `gradients` rows, each the gradient of the mean loss of `gradient_batch` samples (1: of
    one), drawn without replacement, pass after pass, in the order of the run's seed.

    damping: λ that a method solves with. No part of the key: what is stored, the rows and their Gram matrix, serves
    every λ.
    """

    kind: ClassVar[str] = "low_rank"
    result: ClassVar[type] = LowRankFisher
    replicated: ClassVar[bool] = True

    gradients: Count = 64
    gradient_batch: Count = 32
    damping: Positive = 1e-5

    @property
    def batch_size(self) -> int:
        return self.gradient_batch

    def key(self) -> dict[str, Any]:
        return {"gradients": self.gradients, "gradient_batch": self.gradient_batch}

    def batches(self, setting: Setting, part: str, batches_per_update: int = 1) -> Chained:
        loaders, lengths = self.passes(dataclasses.replace(setting, rank=0, world_size=1), part)
        return Chained(*loaders, lengths=lengths)

    def passes(self, setting: Setting, part: str) -> tuple[list[Any], list[int]]:
        """Loaders of as many passes over a part as the rows take, and how many batches of each."""
        samples = len(setting.parts[part])
        if self.gradient_batch > samples:
            raise ValueError(f"gradient_batch={self.gradient_batch}: there are {samples} training samples")
        rows = max(1, min(TOGETHER, samples) // self.gradient_batch)  # of one batch
        loader = setting.loader(part, shuffle=True, batch_size=rows * self.gradient_batch, drop_last=True)
        passes, rest = divmod(-(-self.gradients // rows), len(loader))
        lengths = passes * [len(loader)] + ([rest] if rest else [])
        return len(lengths) * [loader], lengths

    def accumulator(self, model: nn.Module, seed: int, likelihood: str = "cross_entropy") -> LowRankAccumulator:
        return LowRankAccumulator(model, loss=likelihood, rows=self.gradients, batch=self.gradient_batch)
