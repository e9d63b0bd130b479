"""Texts as rows of tokens of different length, all in one array, and the loader that pads them batch by batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from fisherexp.data.batch import Batch, spread
from fisherexp.data.loader import Loader
from fisherexp.objectives.token_prediction import IGNORED

STEP = 8  # rows are padded to a multiple of it, as far as there are longer ones: few shapes, and little padding
PIECE = 4096  # rows hashed at a time


@dataclass(frozen=True, eq=False)
class Rows(ABC):
    """The counterpart of TensorSet. A subset shares `tokens`, which may be mapped from a file.

    tokens: int32 (total,), row behind row. starts, lengths: int64 (N,), where each row begins and how long it is.
    padding: the token that fills a row. width: T, to which rows are padded; None for the longest row of a batch, up to
    a multiple of STEP, but no further than the longest of all: a model may take no more. weights, tags: see Batch.
    """

    tokens: Tensor
    starts: Tensor
    lengths: Tensor
    padding: int = field(default=0, kw_only=True)
    width: int | None = field(default=None, kw_only=True)
    weights: Tensor | None = field(default=None, kw_only=True)
    tags: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls, tokens: Tensor, lengths: Tensor, *more: Tensor, **options: Any) -> Self:
        """All rows of an array, each of its length; more: what a subclass has beside them."""
        lengths = lengths.long()
        return cls(tokens, lengths.cumsum(0) - lengths, lengths, *more, **options)

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def targets_at(self, indices: Tensor) -> Tensor:
        """Targets of the rows at `indices` (B,)."""

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
        where, mask = self._places(indices)
        tokens = self.tokens[where].long().masked_fill(~mask, self.padding)
        return {"input_ids": tokens, "attention_mask": mask.long()}

    def _places(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Where in `tokens` the padded rows at `indices` are found, (B, T), and which places are theirs."""
        lengths = self.lengths[indices]
        longest, most = (int(found.max()) if len(found) else 0 for found in (lengths, self.lengths))
        places = torch.arange(self.width or min(-(-longest // STEP) * STEP, most))
        where = (self.starts[indices, None] + places).clamp(max=max(0, len(self.tokens) - 1))
        return where, places < lengths[:, None]

    def subset(self, indices: Sequence[int] | Tensor, **more: Tensor) -> Self:
        """The rows at `indices`, in that order; more: as in `of`, of these rows."""
        at = torch.as_tensor(indices, dtype=torch.int64)
        return replace(
            self,
            starts=self.starts[at],
            lengths=self.lengths[at],
            weights=None if self.weights is None else self.weights[at],
            tags={name: tag[at] for name, tag in self.tags.items()},
            **more,
        )

    def tagged(self, **tags: Tensor | bool | int) -> Self:
        """As TensorSet.tagged."""
        return replace(self, tags={**self.tags, **spread(tags, self.lengths)})

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
        named = [*(("", t) for t in self._by_row()), *((f"tag {name}", t) for name, t in sorted(self.tags.items()))]
        for name, tensor in named if self.weights is None else [*named, ("weights", self.weights)]:
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))

    def _by_row(self) -> list[Tensor]:
        return [self.lengths]


@dataclass(frozen=True, eq=False)
class TokenRows(Rows):
    """targets: int64 (N,), the class of each row."""

    targets: Tensor

    def targets_at(self, indices: Tensor) -> Tensor:
        return self.targets[indices]

    def subset(self, indices: Sequence[int] | Tensor) -> Self:
        return super().subset(indices, targets=self.targets[torch.as_tensor(indices, dtype=torch.int64)])

    def _by_row(self) -> list[Tensor]:
        return [self.lengths, self.targets]


@dataclass(frozen=True, eq=False)
class LanguageRows(Rows):
    """labels: int32 (total,) like tokens, what follows each of them; IGNORED where that does not count."""

    labels: Tensor

    @property
    def targets(self) -> Tensor:
        """Next tokens (N, T) of all rows padded."""
        return self.targets_at(torch.arange(len(self)))

    def targets_at(self, indices: Tensor) -> Tensor:
        where, mask = self._places(indices)
        return self.labels[where].long().masked_fill(~mask, IGNORED)

    def hash_into(self, digest: Any) -> None:
        super().hash_into(digest)
        for piece in torch.arange(len(self)).split(PIECE):
            digest.update(memoryview(replace(self, width=None).targets_at(piece).numpy()).cast("B"))


class TokenLoader(Loader):
    """Batches of Rows on `device`. See Loader for the options."""

    def __init__(
        self, rows: Rows, batch_size: int, *, device: torch.device | str | None = None, **options: Any
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
            batch = Batch(rows.padded(at), rows.targets_at(at), weights, tags)
            yield batch.map(lambda tensor: tensor.to(self.device))
