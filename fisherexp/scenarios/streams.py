"""Streams of corrupted test images, on which a method adapts while it is evaluated: one class for each protocol.

Everything but the images themselves follows from the scenario's own seed: all methods, and all seeds of a run, meet
the same stream. Each image is predicted once, when it comes (and whenever clean images come by again).
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import AtLeastOne, Corruption, Count, NonNegative, Size
from fisherexp.data.corruptions import BENCHMARK, Suite
from fisherexp.data.corruptions.suite import Images, joined
from fisherexp.data.corruptions.tables import JPEG_QUALITY, table_of
from fisherexp.data.image_data import ImageData
from fisherexp.metrics.stream import CLEAN, StreamMetrics
from fisherexp.scenarios.correlation import correlated_order, effective_classes
from fisherexp.scenarios.setting import Segment, Setting, Store
from fisherexp.seeds import generator

# Up to the worst and back: the severities of the gradual protocol (Wang et al., CVPR 2022, arXiv 2203.13591).
RAMP = (1, 2, 3, 4, 5, 4, 3, 2, 1)
WORST = 5


@dataclass(frozen=True)
class Stretch:
    """A piece of a stream. domain: the corruption of all its images, or the number of each one's corruption (n,).
    severity: in a stream of several."""

    name: str
    images: Images
    domain: str | Tensor
    reset: Literal["never", "before", "each_batch"] = "never"
    severity: int | None = None


class Stream:
    """What all protocols share.

    corruptions: in the order in which they come; by default the fifteen of the benchmark in its order.
    severity: 1 … 5. table: of constants, those of CIFAR-10-C or of ImageNet-C; see data/corruptions/tables.py.
    images: how many of the test images, the same ones under every corruption; all by default.
    clean: clean images after each corruption, on which the method goes on adapting ('online') or is only evaluated
        ('frozen', and then at the very beginning, too).
    batch_size: of the stream. seed: of the choice and order of images and of the corruptions.
    published: folder of published corrupted images, absolute or in the data folder; 'auto' uses the data set's own
        where it is in the data folder and generates the images elsewhere; none always generates them.
    frost_textures: folder with the published textures frost1.png … frost5.jpg; by default they are generated.
    saved: what generated images went through: 'jpeg' of quality 85 or nothing ('lossless'); 'auto' is as the set with
        the constants of `table` was published: ImageNet-C in JPEG, CIFAR-10-C lossless.
    """

    kind = "stream"
    requires = ("images", "class_labels")
    references = {"before": "source"}
    paths = ("published", "frost_textures")
    # How a method meets clean images that come by, and how many single images it may keep.
    clean_reset: Literal["never", "each_batch"] = "never"
    window = 0

    def __init__(
        self,
        corruptions: AtLeastOne[Corruption] | None = None,
        severity: Literal[1, 2, 3, 4, 5] = 5,
        table: Literal["cifar", "imagenet"] = "cifar",
        images: Count | None = None,
        clean: Literal["none", "online", "frozen"] = "none",
        batch_size: Count = 64,
        seed: Size = 0,
        published: str | None = "auto",
        frost_textures: str | None = None,
        saved: Literal["auto", "jpeg", "lossless"] = "auto",
    ) -> None:
        self.corruptions = list(BENCHMARK) if corruptions is None else corruptions
        self.severity, self.table, self.images, self.clean = severity, table, images, clean
        self.batch_size, self.seed = batch_size, seed
        self.published, self.frost_textures, self.saved = published, frost_textures, saved

    @abstractmethod
    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        """The stream in order; after each group clean images come by, where they are asked for."""

    def setting(self, data: ImageData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train, test, and those of the stream by name; 'clean' is the part of the test set that is used.

        Raises ValueError for more images than there are, for no or repeated corruptions, and for options of generated
        images where published ones are taken.
        """
        suite = self._suite(data, store)
        # Clean images are evaluated before a frozen stream begins: what is lost later is the method's, not the model's.
        clean = Stretch(CLEAN, suite.clean, CLEAN, self.clean_reset)
        stream = [clean] if self.clean == "frozen" else []
        for group in self.groups(suite, data.num_classes):
            stream += group + ([clean] if self.clean != "none" else [])
        adapt = {stretch.name: stretch is not clean or self.clean == "online" for stretch in stream}
        domains = {stretch.name: stretch.domain for stretch in stream}
        evaluated = tuple(stretch.name for stretch in stream)
        at_5 = tuple(stretch.name for stretch in stream if stretch.severity == WORST)
        together = self.window or self.batch_size
        saved = f", saved in JPEG of quality {self._quality}" if self._quality else ""
        classes = [effective_classes(s.images.targets, together) for s in stream if s is not clean]
        return Setting(
            data,
            {"train": data.train, "test": data.test} | {stretch.name: stretch.images for stretch in stream},
            evaluated,
            partial(StreamMetrics, evaluated, domains, tuple(self.corruptions), at_5),
            seed,
            segments=tuple(Segment(adapt[stretch.name], stretch.reset) for stretch in stream),
            stream_batch_size=self.batch_size,
            window=self.window,
            altered=self._altered(data, suite),
            about={
                "corruptions": str(suite.folder) if suite.folder else f"generated, {self.table} table{saved}",
                "classes_per_batch": fmean(classes),
            },
        )

    def _suite(self, data: ImageData, store: Store | None) -> Suite:
        available = len(data.test)
        if self.images is not None and self.images > available:
            raise ValueError(f"scenario.images={self.images}, but the test set has only {available} images")
        if not self.corruptions or len(set(self.corruptions)) < len(self.corruptions):
            raise ValueError(f"scenario.corruptions={self.corruptions}: at least one, and each only once")
        order = torch.randperm(available, generator=generator("stream", self.seed))[: self.images]
        frost = None if self.frost_textures is None else data.locate(self.frost_textures)
        options = {"table": self.table, "seed": self.seed, "frost_folder": frost, "quality": self._quality}
        folder = self._published(data)
        if folder is not None:
            self._refuse_idle(data, folder)
        return Suite(data.test, order, folder=folder, **options, store=store)

    def _refuse_idle(self, data: ImageData, folder: Path) -> None:
        own = self.published == "auto" and table_of(data.published_corruptions) == "cifar"
        # The default table says nothing of ImageNet-C, which is taken as it was published.
        idle = {"table": own and self.table != "cifar", "saved": self.saved != "auto"}
        idle["frost_textures"] = self.frost_textures is not None
        if given := [name for name, counts in idle.items() if counts]:
            raise ValueError(
                f"scenario.{given[0]}={getattr(self, given[0])} is of generated images, and {folder} has published "
                "ones; scenario.published=null generates them"
            )

    def _altered(self, data: ImageData, suite: Suite) -> bool:
        own = table_of(data.published_corruptions)
        made = suite.folder is None and (self.table, self._quality) != (own, JPEG_QUALITY[own])
        return made or self.images is not None or self.severity != 5 or set(self.corruptions) != set(BENCHMARK)

    @property
    def _quality(self) -> int | None:
        return {"auto": JPEG_QUALITY[self.table], "jpeg": JPEG_QUALITY["imagenet"], "lossless": None}[self.saved]

    def _published(self, data: ImageData) -> Path | None:
        if self.published == "auto":
            folder = data.root / data.published_corruptions if data.published_corruptions else None
            return folder if folder is not None and folder.is_dir() else None
        return None if self.published is None else data.locate(self.published)

    def _single(self, suite: Suite, reset: Literal["never", "before", "each_batch"]) -> list[Stretch]:
        return [Stretch(name, suite.corrupted(name, self.severity), name, reset) for name in self.corruptions]

    def _mixed(self, suite: Suite) -> tuple[Images, Tensor]:
        """All images under all corruptions, and the number of each one's corruption."""
        sets = [suite.corrupted(name, self.severity) for name in self.corruptions]
        return joined(sets), torch.arange(len(sets)).repeat_interleave(len(suite.clean))


class ResetEachShift(Stream):
    """One corruption after the other, each met by the source model."""

    paper = "Wang et al., ICLR 2021, arXiv 2006.10726"

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        yield from ([stretch] for stretch in self._single(suite, "before"))


class Continual(Stream):
    """One corruption after the other, the method never reset."""

    paper = "Wang et al., CVPR 2022, arXiv 2203.13591"

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        yield from ([stretch] for stretch in self._single(suite, "never"))


class Lifelong(Stream):
    """The continual stream again and again; clean images come by after each round."""

    paper = "Niu et al., ICML 2022, arXiv 2204.02610"

    def __init__(self, rounds: Count = 5, **options: Any) -> None:
        super().__init__(**options)
        self.rounds = rounds

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        yield from [self._single(suite, "never")] * self.rounds


class Gradual(Stream):
    """Each corruption grows from severity 1 to 5 and fades again (`severity` plays no part).

    begin: of the first corruption; 'worst' leaves out its growth, as CoTTA's code does, so that the source model meets
        severity 5 at once; 'mildest' does not, as Döbler's code.

    Errors are of all severities, and at severity 5 alone.
    """

    paper = "Wang et al., CVPR 2022, arXiv 2203.13591"

    def __init__(self, begin: Literal["worst", "mildest"] = "worst", **options: Any) -> None:
        super().__init__(**options)
        self.begin = begin

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        for name in self.corruptions:
            levels = {level: suite.corrupted(name, level) for level in sorted(set(RAMP))}
            cut = name == self.corruptions[0] and self.begin == "worst"
            ramp = RAMP[RAMP.index(WORST) :] if cut else RAMP
            yield [Stretch(f"{name}_{level}", levels[level], name, severity=level) for level in ramp]


class MixedDomains(Stream):
    """All corruptions shuffled into one stream."""

    paper = "Marsden et al., WACV 2024, arXiv 2306.00650"

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        images, domain = self._mixed(suite)
        order = torch.randperm(len(images), generator=generator("mixed", self.seed))
        yield [Stretch("mixed", images.subset(order), domain[order])]


class Correlated(Stream):
    """The continual stream with images sorted by label in part: Dirichlet chunks of concentration `delta`.

    delta: smaller is more correlated; 0 sorts the images of each corruption by label.
    sampler: how the chunks are made: 'note' fills them evenly (Gong et al.; Döbler's code), 'rotta' does not (Yuan et
        al., CVPR 2023, arXiv 2303.13899). See scenarios/correlation.py.
    """

    paper = "Gong et al., NeurIPS 2022, arXiv 2208.05117"

    def __init__(self, delta: NonNegative = 0.1, sampler: Literal["note", "rotta"] = "note", **options: Any) -> None:
        super().__init__(**options)
        self.delta, self.sampler = delta, sampler

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        for name in self.corruptions:
            order = correlated_order(
                suite.clean.targets, self.delta, num_classes, name, self.seed, sampler=self.sampler
            )
            yield [Stretch(name, suite.corrupted(name, self.severity).subset(order), name)]


class MixedCorrelated(Stream):
    """All corruptions in one stream, sorted by label in part. delta: as in Correlated."""

    paper = "Marsden et al., WACV 2024, arXiv 2306.00650"

    def __init__(self, delta: NonNegative = 0.01, **options: Any) -> None:
        super().__init__(**options)
        self.delta = delta

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        images, domain = self._mixed(suite)
        order = correlated_order(images.targets, self.delta, num_classes, "mixed", self.seed)
        yield [Stretch("mixed", images.subset(order), domain[order])]


class Episodic(Stream):
    """Every batch is met by the source model."""

    paper = "Zhang et al., NeurIPS 2022, arXiv 2110.09506"
    clean_reset = "each_batch"

    def groups(self, suite: Suite, num_classes: int) -> Iterator[list[Stretch]]:
        yield from ([stretch] for stretch in self._single(suite, "each_batch"))


class SingleImage(Continual):
    """The continual stream one image at a time; a method may keep the last `window` images and predicts the newest."""

    paper = "Niu et al., ICLR 2023, arXiv 2302.12400"

    def __init__(self, window: Size = 64, batch_size: Literal[1] = 1, **options: Any) -> None:
        super().__init__(batch_size=batch_size, **options)
        self.window = window
