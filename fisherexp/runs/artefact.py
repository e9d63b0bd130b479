"""What a store hands out, what other weights are wrapped in to be used like it, and the files of both.

A file of tensors carries a checksum of all it holds, which is verified when it is read: one damaged byte would be
another result. That costs 0.5 s of processor time a GiB (CRC-32; 1.6 s with BLAKE2).
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fisherexp.files import write_atomically


@dataclass(frozen=True)
class Artefact:
    """tensors by name; about: plain containers; key: hash of what it depends on; path: None of what is in no store;
    built: by this call, not found."""

    key: str
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    path: Path | None
    built: bool


class Damaged(ValueError):
    """A file of tensors does not hold what was written; the message says in what, in one line."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors (contiguous, on the CPU, none sharing memory) and what is to be known of them, atomically."""
    text = json.dumps(about)
    header = {"about": text, "checksum": _checksum(tensors, text)}
    write_atomically(path, lambda temporary: save_file(dict(tensors), temporary, metadata=header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, about) of a file. One without a header of ours (an older or a foreign file) is taken as it is.

    Raises Damaged for a file that is not what was written.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            header = file.metadata() or {}
        ours = "checksum" in header or ("about" in header and len(header) > 1)
        if ours and header["checksum"] != _checksum(tensors, header["about"]):
            raise Damaged("its content has another checksum than its header says")
        return tensors, json.loads(header.get("about", "{}"))
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(" ".join(str(error).split())) from None


def _checksum(tensors: Mapping[str, Tensor], about: str) -> str:
    """CRC-32 of a text and of names, types, shapes and bytes of tensors: 8 hexadecimal digits."""
    found = zlib.crc32(about.encode())
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), found)
    return f"{found:08x}"


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Hash of tensors by name: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in weights.items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
