"""What a method means by the curvature it asks for: what every such choice answers, so that it can be an artefact."""

from typing import Any, ClassVar

from torch import nn

from fisherexp.curvature import LARGEST, Accumulator
from fisherexp.ranks import over_ranks
from fisherexp.scenarios.setting import Setting


class Curvature:
    """A subclass names an estimator, its options and its samples; `FisherPass` computes it, the store keeps it.

    kind: folder of its artefacts. result: class of what is computed, with `tensors`, `about` and `of`.
    replicated: every rank goes through all batches; otherwise each has a share, and the sums are reduced.
    batch_size: samples of one of the estimator's batches.
    batches_per_update: how many of the estimator's batches one update of its accumulator is given: a matter of speed
        alone.
    """

    kind: ClassVar[str]
    result: ClassVar[type]
    replicated: bool = False
    batch_size: int
    batches_per_update: int = 1

    def key(self) -> dict[str, Any]:
        """What of this changes the result."""
        raise NotImplementedError

    def batches(self, setting: Setting, part: str, batches_per_update: int = 1) -> Any:
        """Batches of a part in this estimator's order, `batches_per_update` of them as one."""
        raise NotImplementedError

    def accumulator(self, model: nn.Module, seed: int, likelihood: str = "cross_entropy") -> Accumulator:
        """An empty accumulator of this estimator for `model`; `seed` is that of sampled labels, `likelihood` one of
        fisherexp.curvature's by name."""
        raise NotImplementedError

    def checksum(self, setting: Setting) -> str:
        """Hash of the samples that the artefact of this estimator is computed from."""
        return setting.checksum("train")

    def read(self, tensors: dict[str, Any], about: dict[str, Any]) -> Any:
        """The result from what the store kept of it."""
        return self.result.of(tensors, about)


def reduce_over_ranks(accumulator: Accumulator) -> None:
    """Give the accumulator of every rank the sums of all; for a single process nothing changes."""
    accumulator.load_sums(over_ranks(accumulator.sums(), largest=LARGEST))
