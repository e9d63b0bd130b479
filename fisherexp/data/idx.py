"""The idx format of the MNIST files: a magic number with type and rank, big-endian sizes, then the values."""

import math
import struct

import numpy as np

from fisherexp.data.errors import DataError

UNSIGNED_BYTE = 0x08


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The uint8 array in `content`, the bytes of an uncompressed idx file called `name` in error messages.

    Raises DataError when the bytes are not an idx file of unsigned bytes, or are too few or too many.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise DataError(f"{name} is not an idx file of unsigned bytes: it begins with {content[:4].hex() or 'nothing'}")
    rank = content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataError(f"{name} ends within its header, after {len(content)} bytes")
    shape = struct.unpack(f">{rank}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(f"{name} declares shape {shape} but holds {len(content) - start} values")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # writable, unlike `content`
