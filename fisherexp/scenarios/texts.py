"""Requests to forget texts, as in MUSE (Shi et al., ICLR 2025, arXiv 2407.06460)."""

import dataclasses
from functools import partial

import torch

from fisherexp.config.types import Count
from fisherexp.data.muse import FORGET, Muse
from fisherexp.metrics.muse import MuseMetrics
from fisherexp.scenarios.forgetting import forgetting
from fisherexp.scenarios.setting import Setting, Store


class TextForgetting:
    """Forget a corpus, keep another: the source has learned both, the oracle what stays.

    passage_tokens: that are written on from a forgotten text, and compared. answer_tokens: of an answer at most.
    """

    paper = "Shi et al., ICLR 2025, arXiv 2407.06460"
    kind = "forgetting"
    requires = ("corpora",)
    references = {"before": "source", "oracle": "oracle"}

    def __init__(self, passage_tokens: Count = 128, answer_tokens: Count = 32) -> None:
        self.passage_tokens, self.answer_tokens = passage_tokens, answer_tokens

    def setting(self, data: Muse, seed: int, store: Store | None = None) -> Setting:
        """Parts: train = retain + forget; test: texts held out. Evaluated are the parts that MuseMetrics names."""
        forgotten = data.train.tags["corpus"] == FORGET
        plain = forgetting(data, forgotten, torch.zeros(len(data.test), dtype=torch.bool), seed)
        written = {"verbmem": self.passage_tokens} | dict.fromkeys(
            ("forget_knowmem", "retain_knowmem"), self.answer_tokens
        )
        asked = {"verbmem": data.asked(data.passages, self.passage_tokens, cut=True)}
        for corpus, pairs in data.questions.items():
            asked[f"{corpus}_knowmem"] = data.asked(pairs, self.answer_tokens, cut=False)
        parts = {name: rows for name, (rows, _) in asked.items()}
        parts |= {"members": data.beginnings("members"), "held_out": data.test}
        evaluation = partial(MuseMetrics, tuple(parts), data.text, data.end, written)
        about = {
            "rows": {name: len(plain.parts[name]) for name in ("forget", "retain")},
            "prompts_cut": {name: cut for name, (_, cut) in asked.items() if cut},
        }
        return dataclasses.replace(
            plain, parts=plain.parts | parts, evaluated=tuple(parts), evaluation=evaluation, about=about
        )
