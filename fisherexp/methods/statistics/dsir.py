"""Data selection by importance resampling: texts are drawn from a pool such that their n-grams are like a target's.

    log w(x) = c(x) · (log(p + 1e-8) - log(q + 1e-8))
    chosen: the K largest log w + Gumbel noise, which is drawing K without replacement, each time in proportion to w

c(x): how many n-grams of x fall into each of the buckets (hashed_ngrams.py); p, q: shares of the buckets in target and
pool. Xie, Santurkar, Ma, Liang: Data Selection for Language Models via Importance Resampling, NeurIPS 2023, arXiv
2302.03169. Weights and choices are those of the authors' package `data-selection` 1.0.3 for smoothing 0; q is fitted to
the whole pool, theirs to the first 1e5 · buckets n-grams of each shard; one target, theirs may have several. To compare
with: the largest cosine between counts and the target's, and a random choice.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count, NonNegative, Probability, Size
from fisherexp.data.hashed_ngrams import counts, hashed, words
from fisherexp.files import write_atomically
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.text_selection import TextSelection
from fisherexp.seeds import derive

FLOOR = 1e-8  # in the logarithms, as in the authors' package
TEXTS = 200  # of a step


def log_ratio(target: np.ndarray, raw: np.ndarray, smoothing: float) -> np.ndarray:
    """log p - log q of buckets (b,) from counts. smoothing: pseudo-count of the target's."""
    wanted, there = target + smoothing, raw
    return np.log(wanted / wanted.sum() + FLOOR) - np.log(there / there.sum() + FLOOR)


def cosine(text: np.ndarray, target: np.ndarray) -> float:
    """Of two vectors of counts; 0 for a text without words."""
    return float(text @ target / max(np.linalg.norm(text) * np.linalg.norm(target), 1e-300))


def chosen(scores: np.ndarray, eligible: np.ndarray, count: int, noise: np.ndarray | None) -> np.ndarray:
    """Places of the `count` largest scores (n,) among the eligible (bool), noise (n,) added, in order of places."""
    keys = np.where(eligible, scores if noise is None else scores + noise, -np.inf)
    return np.sort(np.argsort(-keys, kind="stable")[:count])


class Dsir(IterativeMethod):
    """A step counts, and later weighs, `TEXTS` of the texts.

    selection: dsir, cosine or random. share: K as a share of the pool. sampling: gumbel draws, top takes the largest
    weights. ngrams, buckets, smoothing: of the features. min_length: shorter texts, in words, are never chosen.

    selected.jsonl holds the chosen texts with their scores; weights.png and .pdf show the scores of the pool.
    """

    name = "dsir"
    paper = "Xie et al., NeurIPS 2023, arXiv 2302.03169"
    problems = ("numerical",)
    requires = ("text_selection",)
    # Every piece of the data at home is as long as the others: a larger one is refused, in a line that names it.
    # Weights of such long texts differ by more than noise does, unless the features are coarse.
    counts_with = {"min_length": {"min_length": 129}, "sampling": {"buckets": 5}}
    named_by = "selection"

    problem: TextSelection

    def __init__(
        self,
        selection: Literal["dsir", "cosine", "random"] = "dsir",
        share: Probability = 0.25,
        sampling: Literal["gumbel", "top"] = "gumbel",
        ngrams: Count = 2,
        buckets: Count = 10_000,
        smoothing: NonNegative = 0.0,
        min_length: Size = 100,
    ) -> None:
        super().__init__()
        self.selection, self.share, self.sampling = selection, share, sampling
        self.ngrams, self.buckets, self.smoothing, self.min_length = ngrams, buckets, smoothing, min_length

    def begin(self, problem: TextSelection, seed: int) -> None:
        super().begin(problem, seed)
        self.raw = problem.texts("raw")
        self.count = round(self.share * len(self.raw))
        if not self.count:
            raise ValueError(f"method.share={self.share} of {len(self.raw)} texts is none")
        self.target = sum(self._counts(text) for text in problem.texts("target"))
        self.noise = np.random.default_rng(derive("dsir", seed)).gumbel(size=len(self.raw))
        self.total = np.zeros(self.buckets, dtype=np.int64)
        self.lengths: list[int] = []
        self.scores: list[float] = []

    def _counts(self, text: str) -> np.ndarray:
        return counts(words(text), self.ngrams, self.buckets)

    @property
    def done(self) -> bool:
        return len(self.scores) == len(self.raw)

    def step(self) -> dict[str, float]:
        if len(self.lengths) < len(self.raw):
            for text in self.raw[len(self.lengths) : len(self.lengths) + TEXTS]:
                found = words(text)
                self.lengths.append(len(found))
                self.total += counts(found, self.ngrams, self.buckets)
            if len(self.lengths) == len(self.raw):
                self._check()
            return {"counted": len(self.lengths)}
        ratio = log_ratio(self.target, self.total, self.smoothing)
        self.scores += [self._score(text, ratio) for text in self.raw[len(self.scores) : len(self.scores) + TEXTS]]
        return {"weighed": len(self.scores)}

    def _check(self) -> None:
        eligible = sum(length >= self.min_length for length in self.lengths)
        if eligible < self.count:
            least = f"method.min_length={self.min_length} leaves {eligible} of {len(self.raw)} texts"
            raise ValueError(f"{least}, fewer than the {self.count} of method.share={self.share}")

    def _score(self, text: str, ratio: np.ndarray) -> float:
        if self.selection == "random":
            return 0.0
        if self.selection == "cosine":
            return cosine(self._counts(text), self.target)
        return float(ratio[hashed(words(text), self.ngrams, self.buckets)].sum())

    def state_dict(self) -> dict[str, Any]:
        return {"total": torch.from_numpy(self.total), "lengths": self.lengths, "scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.lengths, self.scores = state["total"].numpy(), state["lengths"], state["scores"]

    def solution(self) -> Tensor:
        drawn = self.selection == "random" or (self.selection == "dsir" and self.sampling == "gumbel")
        eligible = np.asarray(self.lengths) >= self.min_length
        places = chosen(np.asarray(self.scores), eligible, self.count, self.noise if drawn else None)
        return torch.from_numpy(places)

    def tensors(self) -> dict[str, Tensor]:
        return {"selected": self.solution(), "scores": torch.tensor(self.scores, dtype=torch.float64)}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.selection_figure import draw

        places = self.solution().tolist()
        rows = [{"text": self.raw[at], "score": self.scores[at], "place": at} for at in places]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / "selected.jsonl", lambda file: Path(file).write_text(text, encoding="utf-8"))
        per_word = np.asarray(self.scores) / np.maximum(self.lengths, 1) if self.selection == "dsir" else self.scores
        draw(np.asarray(per_word), places, self.problem.instance.get("raw.wanted"), folder / "weights")
