"""What a store hands out, and what other weights are wrapped in to be used like it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Artefact:
    """tensors by name; about: plain containers; key: hash of what it depends on; path: None of what is in no store;
    built: by this call, not found."""

    key: str
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    path: Path | None
    built: bool


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Hash of tensors by name: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in weights.items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
