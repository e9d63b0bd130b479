"""Corrupted copies of a set of images, made once and kept."""

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from fisherexp.data.corruptions.corrupt import corrupt
from fisherexp.data.corruptions.frost import folder_checksum
from fisherexp.data.corruptions.tables import TABLES
from fisherexp.data.store import Store
from fisherexp.data.tensors import TensorSet


def corrupted(
    images: TensorSet,
    name: str,
    severity: int,
    *,
    table: str = "cifar",
    seed: int = 0,
    frost_folder: Path | None = None,
    quality: int | None = None,
    store: Store | None = None,
) -> TensorSet:
    """`images` under one corruption, in the same order; options as for `corrupt`.

    With a store, the images are read from the file of an earlier call, mapped into memory rather than loaded.
    """
    options = {"table": table, "seed": seed, "frost_folder": frost_folder, "quality": quality}
    if store is None:
        return TensorSet(corrupt(images.inputs, name, severity, **options), images.targets)

    def build(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"images": corrupt(images.inputs, name, severity, **options)}, {}

    digest = hashlib.blake2b(digest_size=8)
    images.hash_into(digest)
    parts = {
        "samples": digest.hexdigest(),
        "corruption": name,
        "severity": severity,
        "constants": TABLES[table][name][severity - 1],
        "seed": seed,
        "quality": quality,
        "textures": folder_checksum(frost_folder) if name == "frost" and frost_folder else None,
        "code": store.code_of(corrupted),
    }
    return TensorSet(store.get("corrupted", parts, build).tensors["images"], images.targets)
