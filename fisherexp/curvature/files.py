"""Safetensors files that nobody ever reads half of."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write(path: str | os.PathLike, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Save `tensors` with `header` under a temporary name, then rename it. The permissions are those of a new file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode & 0o777  # safetensors puts a private file in its place
    try:
        # Copies: safetensors refuses tensors that share memory.
        save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, temporary, header)
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
