"""Several passes in order, one after the other, as one epoch."""

from collections.abc import Iterator, Sequence
from itertools import islice

from fisherexp.data.loader import Batch, Loader


class ChainedLoader:
    """The batches of each loader in turn; no batch holds items of two of them.

    lengths: how many batches of each loader make its pass, by default all.

    The same loader may come several times. A loader that shuffles has another order in each pass and epoch: pass p of
    epoch e is its epoch e · (number of passes) + p. The position, which Lightning saves and restores, is the epoch and
    the number of batches handed out in it.
    """

    def __init__(self, loaders: Sequence[Loader], lengths: Sequence[int] | None = None) -> None:
        self.loaders = list(loaders)
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

    # Lightning asks a test loader with a sampler for this one, too.
    batch_sampler = None

    @property
    def sampler(self) -> "ChainedLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

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
