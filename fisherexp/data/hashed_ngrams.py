"""Words of a text and hashes of its n-grams, the features of data selection by importance (DSIR)."""

import functools
import hashlib
import re

import numpy as np

WORD = re.compile(r"\w+|[^\w\s]+")
KNOWN = 2**20  # n-grams whose hash is kept at a time


def words(text: str) -> list[str]:
    """Runs of word characters, and runs of other characters that are no spaces, in lower case."""
    return WORD.findall(text.lower())


@functools.lru_cache(maxsize=KNOWN)
def bucket(ngram: str, buckets: int) -> int:
    """SHA-256 of an n-gram, its words joined by spaces, modulo `buckets`: the same in every process."""
    return int.from_bytes(hashlib.sha256(ngram.encode()).digest(), "big") % buckets


def hashed(text: list[str], n: int, buckets: int) -> np.ndarray:
    """Buckets of all 1-grams … n-grams of a list of words: int64, those of the 1-grams first."""
    found = [bucket(word, buckets) for word in text]
    grams = text
    for size in range(2, n + 1):
        grams = [f"{gram} {word}" for gram, word in zip(grams, text[size - 1 :], strict=False)]
        found += [bucket(gram, buckets) for gram in grams]
    return np.asarray(found, dtype=np.int64)


def counts(text: list[str], n: int, buckets: int) -> np.ndarray:
    """How many n-grams of a list of words fall into each bucket: int64 (buckets,)."""
    return np.bincount(hashed(text, n, buckets), minlength=buckets)


def chunks(text: str, size: int) -> list[str]:
    """The text cut before every `size`-th word; an incomplete last piece is left out."""
    starts = [match.start() for match in WORD.finditer(text)]
    cuts = [*starts[::size], len(text)]
    return [text[cuts[n] : cuts[n + 1]].rstrip() for n in range(len(starts) // size)]
