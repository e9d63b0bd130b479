"""Exponential Golomb codes of order 0: strings of bits for numbers of which small ones are common.

    code of r ≥ 0:  L zeros, then r + 1 in its L + 1 binary digits,   L = ⌊log2(r + 1)⌋;   2 L + 1 bits

Teuhola 1978. Symbols are numbered by how frequent they are, the most frequent gets 0.
"""

import numpy as np


def ranked(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(table, ranks) of integers (n,): distinct ones by falling frequency, of equal ones the smaller first, and the
    place of each symbol in that table."""
    distinct, inverse, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return distinct[order], place[inverse]


def lengths(ranks: np.ndarray) -> np.ndarray:
    """Bits of the code of each rank."""
    # frexp is exact, where log2 may round.
    return 2 * np.frexp((ranks + 1).astype(np.float64))[1] - 1


def encode(ranks: np.ndarray) -> bytes:
    """The codes of ranks (n,) one after the other, filled up with zeros to whole bytes."""
    if len(ranks) == 0:
        return b""
    size = lengths(ranks)
    ends = np.cumsum(size)
    bits = np.zeros(ends[-1], dtype=np.uint8)
    for digit in range(int(size.max() + 1) // 2):
        there = size // 2 >= digit
        bits[ends[there] - 1 - digit] = (ranks[there] + 1) >> digit & 1
    return np.packbits(bits).tobytes()


def decode(coded: bytes, count: int) -> np.ndarray:
    """The `count` ranks that were encoded. Raises ValueError if the bytes end before them."""
    bits = np.unpackbits(np.frombuffer(coded, dtype=np.uint8))
    # Where the next one stands, from each place on: a code has as many zeros as binary digits behind its first one.
    places = np.where(bits, np.arange(len(bits)), len(bits))
    following = np.minimum.accumulate(places[::-1])[::-1].tolist()
    starts, sizes, place = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64), 0
    for number in range(count):
        one = following[place] if place < len(bits) else len(bits)
        starts[number], sizes[number] = one, one - place
        place = 2 * one - place + 1
    if count and place > len(bits):
        raise ValueError(f"the code ends within symbol {number} of {count}")
    values = np.zeros(count, dtype=np.int64)
    for digit in range(int(sizes.max(initial=-1)) + 1):
        there = sizes >= digit
        values[there] |= bits[starts[there] + sizes[there] - digit].astype(np.int64) << digit
    return values - 1
