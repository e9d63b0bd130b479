"""What every loader here has in common: seeded order, ranks, augmentation, a position that can be saved."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fisherexp.data import augment as augmentation
from fisherexp.data.batch import Batch
from fisherexp.seeds import generator


class Loader(ABC):
    """An iterable of batches; one pass is one epoch. A subclass says how a batch is fetched.

    The order of epoch e is a function of (seed, e) alone, and so is the augmentation of each position in it.
    How far one has got is therefore a few integers, and going on in mid-epoch gives exactly the batches that
    were left. Lightning saves and restores them by `state_dict` and announces epochs to `.sampler.set_epoch`;
    a further pass within an announced epoch (a short loader beside a longer one) has an order of its own.
    Unannounced, every new pass is the next epoch.

    size: number of items of the set. indices: the items to go through, all by default.
    shuffle: a new order each epoch. seed: of order and augmentation.
    augment: a policy of augment.py, or None for none.
    drop_last: leave out the last batch if it is not full.
    rank, world_size: this process's share. Batch b of all ranks together is batch b of a single process with
        world_size times the batch size. A shuffled pass gives all ranks equally many items (at most
        world_size - 1 are left out, others each epoch); a pass in order covers every item exactly once.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        indices: Sequence[int] | Tensor | None = None,
        shuffle: bool = False,
        seed: int = 0,
        augment: str | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0…{world_size - 1}, got {rank}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.size, self.batch_size = size, batch_size
        self.indices = None if indices is None else torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        self.shuffle, self.seed = shuffle, seed
        self.augment = augment or "none"
        self.drop_last = drop_last
        self.rank, self.world_size = rank, world_size
        self.epoch, self.repeat, self.batch = 0, 0, 0  # batch: how many were handed out in this pass
        self._announced = False  # someone else counts the epochs
        self._placed = False  # the position was set from outside: the next pass starts there

    @abstractmethod
    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """The batch at each tensor of indices in `batches`, in that order."""

    @property
    def total(self) -> int:
        """Items in one epoch, all ranks together."""
        return self.size if self.indices is None else len(self.indices)

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """(H, W) of images, for augmentation."""

    def order(self, epoch: int, repeat: int = 0) -> Tensor:
        """Indices into the set, in the order in which this rank goes through them in `epoch`. int64, CPU."""
        indices = torch.arange(self.size) if self.indices is None else self.indices
        if self.shuffle:
            everyone = torch.randperm(self.total, generator=generator("order", self.seed, epoch, repeat))
            indices = indices[everyone[: self.total // self.world_size * self.world_size]]
        return self._share(indices)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing below happens before the first batch is asked for. Lightning creates the
        # iterator of the first epoch before it announces that epoch.
        if (self.batch and not self._placed) or self.batch >= len(self):
            self.batch = 0
            if self._announced:
                self.repeat += 1
            else:
                self.epoch += 1
        self._placed = False
        first, batches = self.batch, self.order(self.epoch, self.repeat).split(self.batch_size)
        draws = None
        if self.augment != "none":
            seeded = generator("augment", self.seed, self.epoch, self.repeat)
            draws = augmentation.draw(self.augment, self.total, self.image_size, seeded)
            draws = {name: self._share(values) for name, values in draws.items()}
        for number, batch in enumerate(self.fetch(batches[first : len(self)]), start=first):
            self.batch = number + 1
            if draws is not None:
                here = slice(number * self.batch_size, number * self.batch_size + batch.size)
                here = {name: values[here] for name, values in draws.items()}
                batch = batch._replace(inputs=augmentation.apply(batch.inputs, here))
            yield batch

    def __len__(self) -> int:
        """Batches in one epoch on this rank, wherever in it we are."""
        mine = self.total // self.world_size
        if not self.shuffle and self.rank < self.total % self.world_size:
            mine += 1
        return mine // self.batch_size if self.drop_last else -(-mine // self.batch_size)

    # Lightning asks a test loader with a sampler for this one, too.
    batch_sampler = None

    @property
    def sampler(self) -> "Loader":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass epoch `epoch`: from its start, or from a restored position within it."""
        if not (self._placed and epoch == self.epoch):
            self.repeat, self.batch = 0, 0
        self.epoch, self._placed, self._announced = epoch, True, True

    def state_dict(self) -> dict[str, int]:
        """The position: batches handed out so far in the current pass. The same on every rank."""
        return {"epoch": self.epoch, "repeat": self.repeat, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a saved position."""
        self.epoch, self.repeat, self.batch = state["epoch"], state["repeat"], state["batch"]
        self._placed = True

    def _share(self, everyone: Tensor) -> Tensor:
        return everyone[self.rank :: self.world_size]
