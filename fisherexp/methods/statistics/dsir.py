"""Data selection by importance resampling: texts are drawn from a pool such that their n-grams are like a target's.

    log w(x) = c(x) · (log(p + 1e-8) - log(q + 1e-8))
    chosen: the K largest log w + Gumbel noise, which is drawing K without replacement, each time in proportion to w

c(x): how many n-grams of x fall into each of the buckets (hashed_ngrams.py); p, q: shares of the buckets in target and
pool. Xie, Santurkar, Ma, Liang: Data Selection for Language Models via Importance Resampling, NeurIPS 2023, arXiv
2302.03169. Weights and choices are those of the authors' package `data-selection` 1.0.3 for smoothing 0; q is fitted to
the whole pool, theirs to the first 1e5 · buckets n-grams of each shard. Several targets are one mixture, or each has
texts of its own: as many as its share of all target n-grams, in turn, without those of the targets before. To compare
with: the largest cosine between counts and the target's, a classifier of target against pool, and a random choice.
The scores: data/importance.py.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import AtLeastOne, Count, NonNegative, Positive, Probability, Size
from fisherexp.data.hashed_ngrams import counts, hashed, words
from fisherexp.data.importance import (
    Scorer,
    chosen_in_turn,
    classifier_scorer,
    cosine_scorer,
    importance_scorer,
    noise,
    sizes,
)
from fisherexp.files import write_atomically
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.text_selection import TextSelection
from fisherexp.seeds import derive

TEXTS = 200  # of a step


class Dsir(IterativeMethod):
    """A step counts, and later weighs, `TEXTS` of the texts.

    selection: dsir, cosine, classifier or random. share: K as a share of the pool. sampling: gumbel draws, top takes
    the largest weights; a classifier's draw adds the noise of a Pareto law. targets: several of them are one mixture,
    or each is chosen for separately. proportions: of the texts for each; null: as of the n-grams in the targets.
    ngrams, buckets, smoothing: of the features. min_length: shorter texts, in words, are never chosen.

    selected.jsonl holds the chosen texts with their scores; weights.png and .pdf show the scores of the pool.
    """

    name = "dsir"
    paper = "Xie et al., NeurIPS 2023, arXiv 2302.03169"
    problems = ("numerical",)
    requires = ("text_selection",)
    # Every piece of the data at home is as long as the others: a larger one is refused, in a line that names it.
    # Weights of such long texts differ by more than noise does, unless the features are coarse.
    counts_with = {
        "min_length": {"min_length": 129},
        "sampling": {"buckets": 5},
        "targets": {"/data.wanted": ["numbers", "xml"]},
        "proportions": {"/data.wanted": ["numbers", "xml"], "targets": "separate", "proportions": [0.2, 0.8]},
    }
    named_by = "selection"

    problem: TextSelection

    def __init__(
        self,
        selection: Literal["dsir", "cosine", "classifier", "random"] = "dsir",
        share: Probability = 0.25,
        sampling: Literal["gumbel", "top"] = "gumbel",
        targets: Literal["mixture", "separate"] = "mixture",
        proportions: AtLeastOne[Positive] | None = None,
        ngrams: Count = 2,
        buckets: Count = 10_000,
        smoothing: NonNegative = 0.0,
        min_length: Size = 100,
    ) -> None:
        super().__init__()
        self.selection, self.share, self.sampling = selection, share, sampling
        self.targets, self.proportions = targets, proportions
        self.ngrams, self.buckets, self.smoothing, self.min_length = ngrams, buckets, smoothing, min_length

    def begin(self, problem: TextSelection, seed: int) -> None:
        super().begin(problem, seed)
        self.raw = problem.texts("raw")
        self.count = round(self.share * len(self.raw))
        if not self.count:
            raise ValueError(f"method.share={self.share} of {len(self.raw)} texts is none")
        self.wanted = problem.by_target("target")
        if self.targets == "mixture":
            self.wanted = [[text for texts in self.wanted for text in texts]]
        self.target = [sum(counts(words(text), self.ngrams, self.buckets) for text in texts) for texts in self.wanted]
        given = [float(found.sum()) for found in self.target] if self.proportions is None else self.proportions
        if len(given) != len(self.target):
            have = f"{len(self.target)} target{'s' * (len(self.target) > 1)}, method.targets={self.targets}"
            raise ValueError(f"method.proportions={list(given)}: {len(given)} numbers for {have}")
        self.sizes = sizes(self.count, np.asarray(given))
        random = np.random.default_rng(derive("dsir", seed))
        drawn = noise(self.selection, len(self.raw), len(self.target), random)
        self.noise = None if self.sampling == "top" and self.selection != "random" else drawn
        self.total = np.zeros(self.buckets, dtype=np.int64)
        self.lengths: list[int] = []
        self.weighed: list[list[float]] = []  # a text, by each target
        self.scorers: list[Scorer] = []

    def _hashed(self, text: str) -> np.ndarray:
        return hashed(words(text), self.ngrams, self.buckets)

    @property
    def done(self) -> bool:
        return len(self.weighed) == len(self.raw)

    def step(self) -> dict[str, float]:
        if len(self.lengths) < len(self.raw):
            for text in self.raw[len(self.lengths) : len(self.lengths) + TEXTS]:
                found = words(text)
                self.lengths.append(len(found))
                self.total += counts(found, self.ngrams, self.buckets)
            if len(self.lengths) == len(self.raw):
                self._check()
            return {"counted": len(self.lengths)}
        self.scorers = self.scorers or [self._scorer(*each) for each in zip(self.wanted, self.target, strict=True)]
        for text in self.raw[len(self.weighed) : len(self.weighed) + TEXTS]:
            found = self._hashed(text)
            self.weighed.append([score(found) for score in self.scorers])
        return {"weighed": len(self.weighed)}

    def _check(self) -> None:
        eligible = sum(length >= self.min_length for length in self.lengths)
        if eligible < self.count:
            least = f"method.min_length={self.min_length} leaves {eligible} of {len(self.raw)} texts"
            raise ValueError(f"{least}, fewer than the {self.count} of method.share={self.share}")

    def _scorer(self, texts: list[str], target: np.ndarray) -> Scorer:
        """For one target, by its texts and their counts."""
        if self.selection == "random":
            return lambda text: 0.0
        if self.selection == "cosine":
            return cosine_scorer(target)
        if self.selection == "classifier":
            return classifier_scorer(map(self._hashed, texts), map(self._hashed, self.raw), self.buckets)
        return importance_scorer(target, self.total, self.smoothing)

    def state_dict(self) -> dict[str, Any]:
        return {"total": torch.from_numpy(self.total), "lengths": self.lengths, "scores": self.weighed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.lengths, self.weighed = state["total"].numpy(), state["lengths"], state["scores"]

    @property
    def scores(self) -> np.ndarray:
        """Of the pool: (n,), or of several targets (n, targets)."""
        found = np.asarray(self.weighed)
        return found[:, 0] if len(self.target) == 1 else found

    def for_each(self) -> list[np.ndarray]:
        """Places in the pool of the texts for each target."""
        eligible = np.asarray(self.lengths) >= self.min_length
        return chosen_in_turn(np.asarray(self.weighed), eligible, self.sizes, self.noise)

    def solution(self) -> Tensor:
        return torch.from_numpy(np.sort(np.concatenate(self.for_each())))

    def tensors(self) -> dict[str, Tensor]:
        return {"selected": self.solution(), "scores": torch.from_numpy(self.scores)}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.selection_figure import draw

        owner = {int(at): target for target, places in enumerate(self.for_each()) for at in places}
        rows = [{"text": self.raw[at], "score": self.weighed[at][owner[at]], "place": at} for at in sorted(owner)]
        if len(self.target) > 1:
            rows = [row | {"target": owner[row["place"]]} for row in rows]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / "selected.jsonl", lambda file: Path(file).write_text(text, encoding="utf-8"))
        # Of a text for no target, the score by which it came nearest to be chosen.
        shown = np.asarray([row[owner[at]] if at in owner else max(row) for at, row in enumerate(self.weighed)])
        per_word = shown / np.maximum(self.lengths, 1) if self.selection == "dsir" else shown
        draw(per_word, sorted(owner), self.problem.instance.get("raw.wanted"), folder / "weights")
