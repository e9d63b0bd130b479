"""Samples as tensors in memory, and the loader that slices them: about a microsecond per image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fisherexp.data.batch import Batch, mapped, spread
from fisherexp.data.loader import Loader


@dataclass(frozen=True, eq=False)
class TensorSet:
    """inputs: images uint8 (N, C, H, W), tokens int64 (N, T), numbers float32 (N, d), or several tensors by name.
    targets: classes int64 (N,), next tokens int64 (N, T), or numbers float32 (N, k). weights, tags: see Batch.
    """

    inputs: Any
    targets: Tensor
    weights: Tensor | None = None
    tags: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def batch(self) -> Batch:
        """All of it as one batch."""
        return Batch(self.inputs, self.targets, self.weights, self.tags)

    @property
    def images(self) -> Tensor:
        """The inputs of a set of images."""
        return self.inputs

    def subset(self, indices: Sequence[int] | Tensor) -> "TensorSet":
        """The items at `indices`, in that order (a copy)."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.targets.device)
        return TensorSet(*self.batch.map(lambda tensor: tensor.index_select(0, indices)))

    def tagged(self, **tags: Tensor | bool | int) -> "TensorSet":
        """The same samples with further tags: tensors (N,), or one value for all. See batch.spread."""
        return replace(self, tags={**self.tags, **spread(tags, self.targets)})

    def loader(self, batch_size: int, **options: Any) -> "TensorLoader":
        """Batches of this set; options as for TensorLoader."""
        return TensorLoader(self, batch_size, **options)

    def hash_into(self, digest: Any) -> None:
        """Feed all content to a hashlib object."""
        named = self.inputs if isinstance(self.inputs, Mapping) else {"": self.inputs}
        tensors = [
            *named.items(),
            ("", self.targets),
            *((f"tag {name}", tag) for name, tag in sorted(self.tags.items())),
        ]
        if self.weights is not None:
            tensors.append(("weights", self.weights))
        for name, tensor in tensors:
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.cpu().contiguous().numpy()).cast("B"))


class TensorLoader(Loader):
    """Batches of a TensorSet, on the device where they will be used. See Loader for the options.

    All is moved to `device` once, here, not batch by batch. A pass in order without `indices` hands out views: do not
    write into a batch.
    """

    def __init__(
        self, samples: TensorSet, batch_size: int, *, device: torch.device | str | None = None, **options: Any
    ) -> None:
        super().__init__(len(samples), batch_size, **options)
        sizes = {len(tensor) for tensor in _tensors(samples.batch)}
        if sizes != {len(samples)}:
            raise ValueError(f"inputs, targets and tags differ in number: {sorted(sizes)}")
        self.samples = samples.batch.map(lambda tensor: tensor.to(device))

    @property
    def image_size(self) -> tuple[int, int]:
        return tuple(self.samples.inputs.shape[-2:])

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        if not self.shuffle and self.indices is None and self.world_size == 1:
            for batch in batches:
                here = slice(int(batch[0]), int(batch[-1]) + 1)
                yield self._select(lambda tensor, here=here: tensor[here])
            return
        device = self.samples.targets.device
        if device.type != "cpu" and batches:  # one transfer of indices per epoch
            batches = torch.cat(list(batches)).to(device).split(self.batch_size)
        for batch in batches:
            yield self._select(lambda tensor, batch=batch: tensor.index_select(0, batch))

    def _select(self, change: Any) -> Batch:
        if self.samples.weights is None and not self.samples.tags:  # the usual case, without a walk
            return Batch(mapped(self.samples.inputs, change), change(self.samples.targets))
        return self.samples.map(change)


def _tensors(batch: Batch) -> list[Tensor]:
    found: list[Tensor] = []
    batch.map(lambda tensor: found.append(tensor) or tensor)
    return found
