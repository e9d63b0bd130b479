"""Texts as rows of tokens of different length, all in one array, and the loader that pads them batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fisherexp.data.batch import Batch, spread
from fisherexp.data.loader import Loader

STEP = 8  # rows are padded to a multiple of it: few shapes, and little padding
PIECE = 4096  # rows hashed at a time


@dataclass(frozen=True, eq=False)
class TokenRows:
    """The counterpart of TensorSet. A subset shares `tokens`, which may be mapped from a file.

    tokens: int32 (total,), row behind row. starts, lengths: int64 (N,), where each row begins and how long it is.
    targets: int64 (N,). padding: the token that fills a row. width: T, to which rows are padded; None for the longest
    row of a batch, up to a multiple of STEP. weights, tags: see Batch.
    """

    tokens: Tensor
    starts: Tensor
    lengths: Tensor
    targets: Tensor
    padding: int = 0
    width: int | None = None
    weights: Tensor | None = None
    tags: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, tokens: Tensor, lengths: Tensor, targets: Tensor, **options: Any) -> "TokenRows":
        """All rows of an array, each of its length."""
        lengths = lengths.long()
        return cls(tokens, lengths.cumsum(0) - lengths, lengths, targets, **options)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """All rows padded."""
        return self.padded(torch.arange(len(self)))

    @property
    def batch(self) -> Batch:
        """All of it as one batch."""
        return Batch(self.inputs, self.targets, self.weights, self.tags)

    def padded(self, indices: Tensor) -> dict[str, Tensor]:
        """input_ids and attention_mask, int64 (B, T), of the rows at `indices` (B,)."""
        lengths = self.lengths[indices]
        longest = int(lengths.max()) if len(lengths) else 0
        places = torch.arange(self.width or -(-longest // STEP) * STEP)
        mask = places < lengths[:, None]
        where = (self.starts[indices, None] + places).clamp(max=max(0, len(self.tokens) - 1))
        tokens = self.tokens[where].long().masked_fill(~mask, self.padding)
        return {"input_ids": tokens, "attention_mask": mask.long()}

    def subset(self, indices: Sequence[int] | Tensor) -> "TokenRows":
        """The rows at `indices`, in that order."""
        at = torch.as_tensor(indices, dtype=torch.int64)
        return replace(
            self,
            starts=self.starts[at],
            lengths=self.lengths[at],
            targets=self.targets[at],
            weights=None if self.weights is None else self.weights[at],
            tags={name: tag[at] for name, tag in self.tags.items()},
        )

    def tagged(self, **tags: Tensor | bool | int) -> "TokenRows":
        """As TensorSet.tagged."""
        return replace(self, tags={**self.tags, **spread(tags, self.targets)})

    def loader(self, batch_size: int, **options: Any) -> "TokenLoader":
        """Batches of this set; options as for TokenLoader."""
        return TokenLoader(self, batch_size, **options)

    def hash_into(self, digest: Any) -> None:
        """Feed all content to a hashlib object."""
        for piece in torch.arange(len(self)).split(PIECE):
            found = replace(self, width=None).padded(piece)
            kept = found["input_ids"][found["attention_mask"].bool()].int()
            digest.update(memoryview(kept.numpy()).cast("B"))
        digest.update(f"padding {self.padding} width {self.width}".encode())
        named = [("", self.lengths), ("", self.targets), *((f"tag {name}", t) for name, t in sorted(self.tags.items()))]
        for name, tensor in named if self.weights is None else [*named, ("weights", self.weights)]:
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))


class TokenLoader(Loader):
    """Batches of TokenRows on `device`. See Loader for the options."""

    def __init__(
        self, rows: TokenRows, batch_size: int, *, device: torch.device | str | None = None, **options: Any
    ) -> None:
        super().__init__(len(rows), batch_size, **options)
        self.rows, self.device = rows, device

    @property
    def image_size(self) -> tuple[int, int]:
        """Raises TypeError: texts are not augmented."""
        raise TypeError("texts have no size for augmentation")

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        rows = self.rows
        for at in batches:
            weights = None if rows.weights is None else rows.weights[at]
            tags = {name: tag[at] for name, tag in rows.tags.items()}
            batch = Batch(rows.padded(at), rows.targets[at], weights, tags)
            yield batch.map(lambda tensor: tensor.to(self.device))
