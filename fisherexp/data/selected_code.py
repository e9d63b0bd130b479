"""Characters of texts that were chosen from a pool for being like a target, to train on; tests are on the target."""

from typing import Any, Literal

import numpy as np

from fisherexp.config.types import Count, Probability
from fisherexp.data.characters import Characters, sequences
from fisherexp.data.errors import DataError
from fisherexp.data.hashed_ngrams import counts, hashed, words
from fisherexp.data.importance import (
    Scorer,
    Selection,
    chosen,
    classifier_scorer,
    cosine_scorer,
    importance_scorer,
    noise,
)
from fisherexp.data.tensors import TensorSet
from fisherexp.data.text_selection import mixed_code, unpacked
from fisherexp.seeds import derive

NGRAMS, BUCKETS = 2, 10_000


def scorer(selection: Selection, target: list[str], raw: list[str]) -> Scorer:
    """By texts of the target and of the pool, with the settings of the authors of DSIR."""
    if selection == "random":
        return lambda text: 0.0
    if selection == "classifier":
        return classifier_scorer(*([grams(text) for text in texts] for texts in (target, raw)), BUCKETS)
    wanted, there = (sum(counts(words(text), NGRAMS, BUCKETS) for text in texts) for texts in (target, raw))
    return cosine_scorer(wanted) if selection == "cosine" else importance_scorer(wanted, there, 0.0)


def grams(text: str) -> np.ndarray:
    """The buckets of its n-grams."""
    return hashed(words(text), NGRAMS, BUCKETS)


def select(selection: Selection, target: list[str], raw: list[str], count: int, seed: int) -> list[str]:
    """`count` texts of the pool, drawn by this selection from a stream of the seed; in the order of the pool."""
    score = scorer(selection, target, raw)
    scores = np.array([score(grams(text)) for text in raw])
    drawn = noise(selection, len(raw), 1, np.random.default_rng(derive("dsir", seed)))
    places = chosen(scores, np.ones(len(raw), dtype=bool), count, None if drawn is None else drawn[:, 0])
    return [raw[at] for at in places]


class SelectedCode(Characters):
    """Pieces of `chunk` words of Python's standard library, chosen from a pool of which a quarter is about numbers.

    selection: how, see data/importance.py; the share `keep` of the pool. pool: its pieces. target: pieces about numbers
    that show what is wanted; as many others are tested on. All draws are of `seed`, that of the data.
    Further options: see Characters. The alphabet is that of the whole pool, whatever is chosen.
    """

    title = "selected code"

    def __init__(
        self,
        selection: Literal["dsir", "cosine", "classifier", "random"] = "dsir",
        keep: Probability = 0.25,
        pool: Count = 800,
        target: Count = 60,
        chunk: Count = 128,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.selection, self.keep, self.pool, self.target, self.chunk = selection, keep, pool, target, chunk

    def read(self) -> tuple[TensorSet, TensorSet]:
        drawn = mixed_code("numbers", self.pool, 0.25, self.target, self.chunk, self.seed)
        raw, target, reference = (unpacked(part, drawn) for part in ("raw", "target", "reference"))
        count = round(self.keep * len(raw))
        if not count:
            raise DataError(f"data.keep={self.keep} of {len(raw)} texts is none")
        found = select(self.selection, target, raw, count, self.seed)
        self.spell(sorted({"\n"}.union(*map(set, [*raw, *target, *reference]))))
        return tuple(sequences(self.tokens("\n".join(texts)), self.context) for texts in (found, reference))
