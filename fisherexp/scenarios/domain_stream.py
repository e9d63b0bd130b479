"""A stream of domains that no training saw, on which a method adapts while it is evaluated."""

from functools import partial
from typing import Any, Literal

import torch

from fisherexp.config.types import Count, Size
from fisherexp.data.domains import DomainData
from fisherexp.metrics.stream import StreamMetrics
from fisherexp.scenarios.setting import Segment, Setting, Store
from fisherexp.seeds import generator


class DomainStream:
    """One domain after the other, each in random order; the source model is trained on one of them.

    trained_on: the domain to train on; null for the first one. The others come in the order of the data.
    images: of each domain, drawn at random; all by default. batch_size: of the stream.
    reset: to the source model before each domain, or never. seed: of the choice and order of images; all methods, and
        all seeds of a run, meet the same stream.

    Variants of a domain that are only evaluated are left out.
    """

    paper = "Iwasawa, Matsuo, NeurIPS 2021"
    kind = "stream"
    requires = ("images", "class_labels", "domains")
    references = {"before": "source"}

    def __init__(
        self,
        trained_on: str | None = None,
        images: Count | None = None,
        batch_size: Count = 64,
        reset: Literal["never", "before"] = "before",
        seed: Size = 0,
    ) -> None:
        self.trained_on, self.images, self.batch_size = trained_on, images, batch_size
        self.reset, self.seed = reset, seed

    def setting(self, data: DomainData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train; one for each domain of the stream, by its name; test, the last of these.

        Raises ValueError for the name of no domain, and for more images than a domain has.
        """
        domains = {name: d for name, d in data.domains(self.seed).items() if name not in data.only_evaluated}
        first = next(iter(domains)) if self.trained_on is None else self.trained_on
        if first not in domains:
            raise ValueError(f"scenario.trained_on={first} is no domain of these data; there are {', '.join(domains)}")
        train = domains.pop(first)
        stream = {name: self._drawn(name, samples) for name, samples in domains.items()}
        names = tuple(stream)
        return Setting(
            data,
            {"train": train, "test": stream[names[-1]]} | stream,
            names,
            partial(StreamMetrics, names, {name: name for name in names}, names),
            seed,
            segments=tuple(Segment(True, self.reset) for _ in names),
            stream_batch_size=self.batch_size,
            altered=self.images is not None,
        )

    def _drawn(self, name: str, samples: Any) -> Any:
        if self.images is not None and self.images > len(samples):
            raise ValueError(f"scenario.images={self.images}, but domain {name} has only {len(samples)} images")
        order = torch.randperm(len(samples), generator=generator("domain_stream", self.seed, name))
        return samples.subset(order[: self.images])
