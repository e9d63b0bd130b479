"""Several passes in order, one after the other, as one epoch."""

from collections.abc import Iterator

from fisherexp.data.loader import Batch, Loader


class ChainedLoader:
    """The batches of each loader in turn; no batch holds items of two of them. The loaders must not shuffle.

    Its position, which Lightning saves and restores, is the number of batches handed out.
    """

    def __init__(self, loaders: list[Loader]) -> None:
        if any(loader.shuffle for loader in loaders):
            raise ValueError("only loaders that go through their items in order can be chained")
        self.loaders = loaders
        self.batch = 0

    def __iter__(self) -> Iterator[Batch]:
        skip, self.batch = (self.batch if self.batch < len(self) else 0), 0
        for loader in self.loaders:
            here = min(skip, len(loader))
            skip, self.batch = skip - here, self.batch + here
            if here < len(loader):
                loader.load_state_dict(loader.state_dict() | {"batch": here})
                for batch in loader:
                    self.batch += 1
                    yield batch

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch = state["batch"]
