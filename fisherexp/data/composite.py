"""Several loaders as one: in turn within an epoch, side by side in every batch or step about, each for some epochs, or
chained.

Lightning saves and restores a position by `state_dict` and announces epochs to `.sampler.set_epoch`; a composite hands
both on to its loaders.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import Any

from fisherexp.data.batch import Batch, joined
from fisherexp.data.loader import Loader


class Composite:
    """loaders: in the order in which they are used. The position is that of all of them."""

    batch_sampler = None  # Lightning asks a loader with a sampler for this one, too

    def __init__(self, *loaders: Any) -> None:
        self.loaders = loaders

    @property
    def sampler(self) -> "Composite":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        for loader in self.loaders:
            loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        return {str(i): loader.state_dict() for i, loader in enumerate(self.loaders)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, loader in enumerate(self.loaders):
            loader.load_state_dict(state[str(i)])


class InTurn(Composite):
    """In every epoch, the batches of the first loader, then those of the next."""

    def __iter__(self) -> Iterator[Batch]:
        if all(loader.batch >= len(loader) for loader in self.loaders):
            self.set_epoch(self.loaders[0].epoch + 1)
        for loader in self.loaders:
            if loader.batch < len(loader):  # else a saved position lies behind it
                yield from loader

    def __len__(self) -> int:
        return sum(map(len, self.loaders))


class Streams(Composite):
    """An epoch is a pass over the loader `leading`, by default the longest; others begin again as often as needed."""

    def __init__(self, *loaders: Any, leading: int | None = None) -> None:
        super().__init__(*loaders)
        self.leading = leading

    def _leading(self) -> int:
        longest = max(range(len(self.loaders)), key=lambda i: len(self.loaders[i]))
        return longest if self.leading is None else self.leading


class SideBySide(Streams):
    """A batch of every loader joined into one, in their order: labelled and unlabelled samples in one step, say."""

    def __iter__(self) -> Iterator[Batch]:
        leading = self._leading()
        streams = [endless(loader) for loader in self.loaders]
        for first in self.loaders[leading]:
            yield joined([first if i == leading else next(stream) for i, stream in enumerate(streams)])

    def __len__(self) -> int:
        return len(self.loaders[self._leading()])


class Alternating(Streams):
    """Some batches of the first loader, then some of the next, round and round: two of training samples and one of
    validation samples, say. A batch is of one loader; a tag of its samples says of which.

    counts: how many batches a loader gives in each round. The leading one may have fewer left for the last round. The
    position is that of the loaders and the number of batches handed out. Raises ValueError unless there is a count of
    at least one for each loader.
    """

    def __init__(self, *loaders: Any, counts: Sequence[int], leading: int | None = None) -> None:
        super().__init__(*loaders, leading=leading)
        if len(counts) != len(loaders) or min(counts) < 1:
            raise ValueError(f"{len(loaders)} loaders need as many counts of at least 1, not {list(counts)}")
        self.counts = list(counts)
        self.epoch, self.batch = 0, 0
        self._placed = False  # the position was set from outside: the next pass starts there

    def __iter__(self) -> Iterator[Batch]:
        if not self._placed or self.batch >= len(self):
            self.batch = 0
        self._placed = False
        streams = [endless(loader) for loader in self.loaders]
        for turn in self._turns()[self.batch :]:
            self.batch += 1
            yield next(streams[turn])

    def __len__(self) -> int:
        return len(self._turns())

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass epoch `epoch`: from its start, or from a restored position within it."""
        if not (self._placed and epoch == self.epoch):
            self.batch = 0
        self.epoch, self._placed = epoch, True
        super().set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.epoch, self.batch, self._placed = state["epoch"], state["batch"], True

    def _turns(self) -> list[int]:
        """The number of the loader that each batch of an epoch is from."""
        leading, turns = self._leading(), []
        left = len(self.loaders[leading])
        while left > 0:
            for number, count in enumerate(self.counts):
                turns += [number] * (min(count, left) if number == leading else count)
            left -= self.counts[leading]
        return turns


class ByEpoch(Composite):
    """The first loader for `epochs` epochs, then the next for as many, and so on; epochs are counted through.

    The position is that of the loader at work. Raises ValueError for loaders of different length, between which
    Lightning could not tell how long an epoch is.
    """

    def __init__(self, *loaders: Loader, epochs: int) -> None:
        super().__init__(*loaders)
        if len({len(loader) for loader in loaders}) != 1:
            raise ValueError(
                f"tasks must have equally many batches, not {', '.join(str(len(each)) for each in loaders)}"
            )
        self.epochs, self.epoch = epochs, 0

    @property
    def loader(self) -> Loader:
        """That of the epoch at hand."""
        return self.loaders[min(self.epoch // self.epochs, len(self.loaders) - 1)]

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes the iterator of the first epoch before it announces that epoch.
        yield from self.loader

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        return {"all_epochs": self.epoch, **self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["all_epochs"]
        self.loader.load_state_dict({name: value for name, value in state.items() if name != "all_epochs"})


class Chained(Composite):
    """Several passes, one after the other, as one epoch; no batch holds items of two of them.

    lengths: how many batches of each loader make its pass, by default all.

    The same loader may come several times. A loader that shuffles has another order in each pass and epoch: pass p of
    epoch e is its epoch e · (number of passes) + p. The position is the epoch and how many of its batches were handed
    out.
    """

    def __init__(self, *loaders: Loader, lengths: Sequence[int] | None = None) -> None:
        super().__init__(*loaders)
        self.lengths = [len(loader) for loader in loaders] if lengths is None else list(lengths)
        self.epoch, self.batch = 0, 0
        self._announced = False  # someone else counts the epochs
        self._placed = False  # the position was set from outside: the next pass starts there

    def __iter__(self) -> Iterator[Batch]:
        if (self.batch and not self._placed) or self.batch >= len(self):
            self.batch = 0
            self.epoch += not self._announced
        self._placed = False
        skip, self.batch = self.batch, 0
        for number, (loader, length) in enumerate(zip(self.loaders, self.lengths, strict=True)):
            here = min(skip, length)
            skip, self.batch = skip - here, self.batch + here
            if here < length:
                epoch = self.epoch * len(self.loaders) + number
                loader.load_state_dict({"epoch": epoch, "repeat": 0, "batch": here})
                for batch in islice(loader, length - here):
                    self.batch += 1
                    yield batch

    def __len__(self) -> int:
        return sum(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass epoch `epoch`: from its start, or from a restored position within it."""
        if not (self._placed and epoch == self.epoch):
            self.batch = 0
        self.epoch, self._placed, self._announced = epoch, True, True

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._placed = True


def endless(loader: Any) -> Iterator[Batch]:
    """The batches of a loader, again and again."""
    for _ in repeat(None):
        yield from loader
