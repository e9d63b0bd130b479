"""A stream of domains that no training saw, on which a method adapts while it is evaluated."""

from functools import partial
from typing import Any, Literal

import torch

from fisherexp.config.types import Count, Probability, Size
from fisherexp.data.domains import DomainData
from fisherexp.metrics.stream import CLEAN, StreamMetrics
from fisherexp.scenarios.setting import Segment, Setting, Store
from fisherexp.seeds import generator


class DomainStream:
    """One domain after the other, each in random order; the source model is trained on one of them.

    trained_on: the domain to train on; null for the first one. The others come in the order of the data.
    images: of each domain, drawn at random; all by default. batch_size: of the stream.
    reset: to the source model before each domain, or never. holdout: share of the domain trained on that is put aside,
        and on which the method is evaluated, not adapted, before the stream and after each domain: what it forgets
        shows there. seed: of the choice and order of images; all methods, and all seeds of a run, meet the same stream.

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
        holdout: Probability = 0.0,
        seed: Size = 0,
    ) -> None:
        self.trained_on, self.images, self.batch_size = trained_on, images, batch_size
        self.reset, self.holdout, self.seed = reset, holdout, seed

    def setting(self, data: DomainData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train; one for each domain of the stream, by its name; 'clean', what is put aside; test, which is
        'clean', or else the last domain.

        Raises ValueError for the name of no domain, for a domain of the stream that is called as another part, for
        more images than a domain has, and for a holdout that leaves no image on one of its sides.
        """
        domains = {name: d for name, d in data.domains(self.seed).items() if name not in data.only_evaluated}
        first = next(iter(domains)) if self.trained_on is None else self.trained_on
        if first not in domains:
            raise ValueError(f"scenario.trained_on={first} is no domain of these data; there are {', '.join(domains)}")
        train, aside = self._split(first, domains.pop(first))
        if taken := sorted({"train", "test", CLEAN} & domains.keys()):
            raise ValueError(
                f"the domain '{taken[0]}' cannot be told from the part of the same name; rename it, or train on it: "
                f"scenario.trained_on={taken[0]}"
            )
        parts = {name: self._drawn(name, samples) for name, samples in domains.items()}
        names = tuple(parts)
        stretches = names
        if aside is not None:
            parts[CLEAN] = aside
            stretches = (CLEAN, *(stretch for name in names for stretch in (name, CLEAN)))
        return Setting(
            data,
            {"train": train, "test": parts[list(parts)[-1]]} | parts,
            stretches,
            partial(StreamMetrics, stretches, {name: name for name in parts}, names),
            seed,
            segments=tuple(Segment(True, self.reset) if s != CLEAN else Segment(False) for s in stretches),
            stream_batch_size=self.batch_size,
            altered=self.images is not None,
        )

    def _split(self, name: str, samples: Any) -> tuple[Any, Any]:
        """What is trained on, and what is put aside; None for nothing."""
        if not self.holdout:
            return samples, None
        order = torch.randperm(len(samples), generator=generator("domain_stream", self.seed, name, "holdout"))
        count = round(self.holdout * len(samples))
        if not 0 < count < len(samples):
            left = "puts nothing aside" if not count else "leaves nothing to train on"
            raise ValueError(f"scenario.holdout={self.holdout} {left} of domain {name} ({len(samples)} images)")
        # Put aside in random order: a batch of one class has statistics of its own.
        return samples.subset(order[count:].sort().values), samples.subset(order[:count])

    def _drawn(self, name: str, samples: Any) -> Any:
        if self.images is not None and self.images > len(samples):
            raise ValueError(f"scenario.images={self.images}, but domain {name} has only {len(samples)} images")
        order = torch.randperm(len(samples), generator=generator("domain_stream", self.seed, name))
        return samples.subset(order[: self.images])
