"""Images and labels as two tensors, and the loader that slices them: about a microsecond per image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fisherexp.data.loader import Batch, Loader


class TensorLoader(Loader):
    """Batches of tensors held in memory, on the device where they will be used. See Loader for the options.

    images: uint8 (N, C, H, W). labels: int64 (N,). Both are moved to `device` once, here, not batch by batch.
    A pass in order without `indices` hands out views of `images`: do not write into a batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        indices: Sequence[int] | Tensor | None = None,
        shuffle: bool = False,
        seed: int = 0,
        augment: str | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            len(labels),
            batch_size,
            indices=indices,
            shuffle=shuffle,
            seed=seed,
            augment=augment,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self.images, self.labels = images.to(device), labels.to(device)

    @property
    def image_size(self) -> tuple[int, int]:
        return tuple(self.images.shape[-2:])

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        if not self.shuffle and self.indices is None and self.world_size == 1:
            for batch in batches:
                here = slice(int(batch[0]), int(batch[-1]) + 1)
                yield self.images[here], self.labels[here]
            return
        if self.images.device.type != "cpu" and batches:  # one transfer of indices per epoch
            batches = torch.cat(list(batches)).to(self.images.device).split(self.batch_size)
        for batch in batches:
            yield self.images.index_select(0, batch), self.labels.index_select(0, batch)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """images: uint8 (N, C, H, W), or tokens: int64 (N, T). labels: int64 (N,), or the next tokens (N, T)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int] | Tensor) -> "ImageSet":
        """The items at `indices`, in that order (a copy)."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return ImageSet(self.images.index_select(0, indices), self.labels.index_select(0, indices))

    def loader(self, batch_size: int, **options) -> TensorLoader:
        """Batches of this set; options as for TensorLoader."""
        return TensorLoader(self.images, self.labels, batch_size, **options)

    def hash_into(self, digest) -> None:
        """Feed all content to a hashlib object."""
        for tensor in (self.images, self.labels):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.cpu().contiguous().numpy()).cast("B"))
