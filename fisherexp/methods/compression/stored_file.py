"""A file of numbers and what they mean: a JSON header behind its length, then blocks of bytes."""

import json
from typing import Any


def packed(header: dict[str, Any], *blocks: bytes) -> bytes:
    """Four bytes with the length of the header, the header with the blocks' lengths, the blocks."""
    described = json.dumps(header | {"blocks": [len(block) for block in blocks]}, separators=(",", ":")).encode()
    return b"".join([len(described).to_bytes(4, "little"), described, *blocks])


def unpacked(stored: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Header and blocks."""
    place = 4 + int.from_bytes(stored[:4], "little")
    header, blocks = json.loads(stored[4:place]), []
    for length in header.pop("blocks"):
        blocks.append(stored[place : place + length])
        place += length
    return header, blocks
