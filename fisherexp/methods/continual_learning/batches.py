"""The batches of several tasks, one task after the other."""

from collections.abc import Iterator

from fisherexp.data.loader import Batch, Loader


class TaskBatches:
    """Hands out the batches of loaders[0] for `epochs` epochs, then those of loaders[1], and so on.

    The loaders must have equally many batches. Epochs are counted through; the position, which Lightning saves and
    restores, is that of the loader at work. Raises ValueError for tasks of different length.
    """

    batch_sampler = None  # Lightning asks a loader with a sampler for this one, too

    def __init__(self, loaders: list[Loader], epochs: int) -> None:
        if len({len(loader) for loader in loaders}) != 1:
            raise ValueError(
                f"tasks must have equally many batches, not {', '.join(str(len(each)) for each in loaders)}"
            )
        self.loaders, self.epochs, self.epoch = loaders, epochs, 0

    @property
    def loader(self) -> Loader:
        """That of the task at hand."""
        return self.loaders[min(self.epoch // self.epochs, len(self.loaders) - 1)]

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes the iterator of the first epoch before it announces that epoch.
        yield from self.loader

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def sampler(self) -> "TaskBatches":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        return {"task_epoch": self.epoch, **self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["task_epoch"]
        self.loader.load_state_dict({name: value for name, value in state.items() if name != "task_epoch"})
