"""The Fisher that anchors a model under adaptation: of the affine parameters of its normalization layers."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from fisherexp.config.types import Count
from fisherexp.curvature import DiagonalAccumulator
from fisherexp.methods.importance import Importance
from fisherexp.methods.test_time_adaptation import norms
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import generator


@dataclass(frozen=True)
class AnchorImportance(Importance):
    """Diagonal Fisher of the norm-affine parameters alone, from a few samples of a named origin.

    gradients: 'per_sample' is the Fisher, with the stored statistics of BatchNorm; 'batch_mean' squares the mean
        gradient of a batch in the model as it adapts, with batch statistics, as the official code does. In
        expectation that is μ² + σ²/batch_size where the Fisher has μ² + σ².
    origin: 'clean' (validation images, else test images before corruption), 'train', or 'stream' (the images that
        come first). samples: how many, drawn from the run's seed; None for all.
    """

    labels: Literal["empirical", "pseudo", "sampled", "expected"] = "pseudo"
    gradients: Literal["per_sample", "batch_mean"] = "per_sample"
    batch_size: Count = 64
    origin: Literal["clean", "train", "stream"] = "clean"
    samples: Count | None = 2000

    def key(self) -> dict[str, Any]:
        found = super().key() | {"parameters": "norm-affine"}
        found.pop("order", None)  # images are drawn
        return found

    def images(self, setting: Setting) -> Any:
        """The set of images it is computed from."""
        if self.origin == "stream":
            adapting = [part for part, s in zip(setting.evaluated, setting.segments, strict=True) if s.adapt]
            first = setting.parts[adapting[0]]
            return first if self.samples is None else first.subset(torch.arange(min(self.samples, len(first))))
        clean = setting.parts["test"] if setting.data.validation is None else setting.data.validation
        images = clean if self.origin == "clean" else setting.parts["train"]
        if self.samples is None or self.samples >= len(images):
            return images
        return images.subset(torch.randperm(len(images), generator=generator("anchor", setting.seed))[: self.samples])

    def checksum(self, setting: Setting) -> str:
        digest = hashlib.blake2b(digest_size=8)
        self.images(setting).hash_into(digest)
        return digest.hexdigest()

    @property
    def batches_per_update(self) -> int:
        return 1  # batch statistics are those of one batch

    def batches(self, setting: Setting, part: str, batches_per_update: int = 1) -> Any:
        images = self.images(setting)
        # A single image has no batch statistics.
        single = self.gradients == "batch_mean" and len(images) % self.batch_size == 1
        return setting.loader_of(images, shuffle=False, batch_size=self.batch_size, drop_last=single)

    def accumulator(self, model: nn.Module, seed: int, likelihood: str = "cross_entropy") -> DiagonalAccumulator:
        parameters = list(norms.affine_parameters(model))
        if not parameters:
            raise ValueError(
                "the anchor is on normalization layers and this model has none: method=lame, shot_im, "
                "cotta, memo work without"
            )
        if self.gradients == "batch_mean":
            norms.use_batch_statistics(model)
        options = {"labels": self.labels, "gradients": self.gradients, "seed": seed, "loss": likelihood}
        return DiagonalAccumulator(model, parameters=parameters, **options)
