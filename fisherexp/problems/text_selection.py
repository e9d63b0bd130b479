"""Texts are to be chosen from a pool such that they are like a target's."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.locations import located
from fisherexp.config.types import AtLeastOne, Count, Distinct, Probability
from fisherexp.data.errors import DataError
from fisherexp.data.hashed_ngrams import chunks, counts, words
from fisherexp.data.text_selection import mixed_code, packed, read_texts, unpacked
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

BUCKETS, NGRAMS, PSEUDO_COUNT = 1000, 2, 1.0  # of the measure: coarser than what a method looks at


def distribution(texts: list[str]) -> np.ndarray:
    """Shares (BUCKETS,) of hashed 1-grams and 2-grams, with a pseudo-count."""
    total = np.full(BUCKETS, PSEUDO_COUNT)
    for text in texts:
        total += counts(words(text), NGRAMS, BUCKETS)
    return total / total.sum()


def divergence(target: list[str], chosen: list[str]) -> float:
    """KL(target ‖ chosen) of their distributions, in nats."""
    wanted, found = distribution(target), distribution(chosen)
    return float(wanted @ np.log(wanted / found))


class TextSelection(Numerical):
    """A solution is int64 (K,), places of chosen texts in the pool. Metrics: kl, the divergence of reference texts,
    which no method sees, from the chosen ones; raw_kl, that from the whole pool; words of the chosen ones; where there
    are several targets, worst_kl, the largest divergence of the reference texts of one of them; and where it is known
    which texts are of a target's kind, precision, the share of those, in %."""

    provides = ("text_selection",)
    headings = {
        "kl": "KL from\nchosen",
        "raw_kl": "KL from\npool",
        "worst_kl": "KL of the\nworst target",
        "precision": "precision\n%",
    }
    better = {"kl": "lower", "worst_kl": "lower", "precision": "higher"}

    def texts(self, name: Literal["raw", "target", "reference"]) -> list[str]:
        """Of a part, once loaded."""
        return unpacked(name, self.instance)

    def by_target(self, name: Literal["target", "reference"]) -> list[list[str]]:
        """The texts of each target."""
        texts, owner = self.texts(name), self.instance[f"{name}.of"].tolist()
        return [[text for text, of in zip(texts, owner, strict=True) if of == kind] for kind in sorted(set(owner))]

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        raw, reference = self.texts("raw"), self.texts("reference")
        chosen = [raw[place] for place in solution.tolist()]
        found = {"kl": divergence(reference, chosen), "raw_kl": divergence(reference, raw)}
        found["words"] = sum(len(words(text)) for text in chosen)
        if len(kinds := self.by_target("reference")) > 1:
            found["worst_kl"] = max(divergence(texts, chosen) for texts in kinds)
        if "raw.wanted" in self.instance:
            found["precision"] = 100 * float(self.instance["raw.wanted"][solution].double().mean())
        return found

    def about(self) -> dict[str, Any]:
        return {part: len(self.instance[f"{part}.ends"]) for part in ("raw", "target", "reference")}


class CodeSelection(TextSelection):
    """Pieces of `chunk` words of Python's standard library: one of its domains is wanted among four, or several.

    pool: how many pieces to choose from, `share` of them wanted, of each domain as many. target: how many show what is
    wanted, of each. What is drawn depends on the version of Python, as its checksum shows.
    """

    title = "code_selection"

    def __init__(
        self,
        wanted: Literal["email", "asyncio", "xml", "numbers"]
        | Distinct[Literal["email", "asyncio", "xml", "numbers"]] = "numbers",
        pool: Count = 800,
        share: Probability = 0.25,
        target: Count = 60,
        chunk: Count = 128,
    ) -> None:
        super().__init__()
        self.wanted, self.pool, self.share, self.target, self.chunk = wanted, pool, share, target, chunk

    def read(self, seed: int) -> Mapping[str, Tensor]:
        return mixed_code(self.wanted, self.pool, self.share, self.target, self.chunk, seed)


class TextSelectionFiles(TextSelection):
    """Your own texts: a folder of .txt files, a .txt file with a text in each line, or a .jsonl file with "text" there.

    path: of the pool. target_path: of texts like those that are wanted, or a list of such paths, each of which is a
    target; a share `held_out` of each only measures.
    chunk: cut all texts into pieces of so many words, None to leave them whole. All texts are held in memory.
    """

    title = "text_selection"
    paths = ("path", "target_path")

    def __init__(
        self,
        path: str,
        target_path: str | AtLeastOne[str],
        held_out: Probability = 0.2,
        chunk: Count | None = None,
        root: str | None = None,
    ) -> None:
        super().__init__()
        self.path, self.held_out, self.chunk, self.root = path, held_out, chunk, root
        self.targets = [target_path] if isinstance(target_path, str) else list(target_path)

    def read(self, seed: int) -> Mapping[str, Tensor]:
        raw = self._texts("path", self.path)
        draws = generator("text_selection", seed)
        parts = {"target": [], "reference": []}
        for number, path in enumerate(self.targets):
            texts = self._texts("target_path", path)
            order = torch.randperm(len(texts), generator=draws).tolist()
            cut = round(self.held_out * len(texts))
            if not 0 < cut < len(texts):
                left = f"of {len(texts)} texts of {path} leaves {cut} to measure with"
                raise DataError(f"data.held_out={self.held_out} {left}")
            parts["reference"] += [(texts[at], number) for at in order[:cut]]
            parts["target"] += [(texts[at], number) for at in order[cut:]]
        found = packed("raw", raw)
        for name, texts in parts.items():
            found |= packed(name, [text for text, _ in texts])
            found[f"{name}.of"] = torch.tensor([number for _, number in texts])
        return found

    def _texts(self, option: str, given: str) -> list[str]:
        path = located(given, self.root)
        if path is None:
            raise DataError(f"data.{option}: there is no '{given}'")
        found = list(read_texts(path))
        if self.chunk is not None:
            found = [piece for text in found for piece in chunks(text, self.chunk)]
        if not found:
            raise DataError(f"data.{option}={path}: there is no text, or none of data.chunk={self.chunk} words")
        return found
