"""Texts to be forgotten, texts that stay, and questions on both, from files as MUSE has them (Shi et al., ICLR 2025,
arXiv 2407.06460)."""

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import torch

from fisherexp.config.types import AtLeastOne, Count, Size
from fisherexp.data.answered import AnsweredData, Pair
from fisherexp.data.errors import DataError
from fisherexp.data.muse_files import read_rows
from fisherexp.data.remarks import say
from fisherexp.data.tensors import TensorSet
from fisherexp.data.token_rows import LanguageRows
from fisherexp.models.tokenizer import Tokenizer

QUESTIONS = {"forget": ("knowmem/forget_qa",), "retain": ("knowmem/retain_qa", "knowmem/retain2_qa")}
SOLVED = {"forget": ("knowmem/forget_qa_icl",), "retain": ("knowmem/retain_qa_icl", "knowmem/retain2_qa_icl")}
FORGET, RETAIN = 1, 0  # the tag 'corpus'


class Muse(AnsweredData):
    """path: a folder with raw/, privleak/, knowmem/ and verbmem/, of which muse_files.read_rows reads the files.

    forget, retain: names of the files of what is learned: what is to be forgotten, and what stays. MUSE lets methods
        use its raw/retain1 and asks after raw/retain2; here both are the texts that stay, for methods, too.
    packed: texts one behind the other, each with the model's marks, cut into blocks. Otherwise a row is a text, and
        what is longer is cut. block_size: T, tokens of a row at most.
    shots: how many solved questions stand before each question; 0: none are read.
    Further options: see AnsweredData. Blank texts are left out and counted.

    The tag 'corpus' of a sample says which text it is of, FORGET or RETAIN. For testing are privleak/holdout's texts.
    Of texts one behind the other, MUSE's code begins every block with the mark that begins a text; open-unlearning puts
    a blank line between two.
    """

    title = "MUSE"
    provides = ("tokens", "text", "next_tokens", "corpora")

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        forget: AtLeastOne[str],
        retain: AtLeastOne[str],
        packed: bool = True,
        block_size: Count = 2048,
        shots: Size = 10,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, **options)
        self.path, self.packed, self.block_size, self.shots = path, packed, block_size, shots
        self.names = {"forget": forget, "retain": retain}
        self.names |= {"members": ["privleak/forget"], "held_out": ["privleak/holdout"]}

    @property
    def end(self) -> int | None:
        """That of texts: neither they nor its questions are written by a template."""
        return self.tokens.end

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """'forget' and 'retain', and with which an attack tells what was learned: 'members' and 'held_out'."""
        folder, found = self.locate(self.path), {}
        for corpus, names in self.names.items():
            every = [text for name in names for (text,) in read_rows(folder, [name], ["text"])]
            found[corpus] = [text for text in every if text.strip()]
            if not found[corpus]:
                raise DataError(f"{folder}: {', '.join(names)}: every text is blank")
            if blank := len(every) - len(found[corpus]):
                self.remarks.setdefault("blank texts", {})[corpus] = blank
        return found

    @cached_property
    def passages(self) -> list[Pair]:
        """Beginnings of texts to be forgotten, and how they go on."""
        return read_rows(self.locate(self.path), ["verbmem/forget"], ["prompt", "gt"])

    @cached_property
    def questions(self) -> dict[str, list[Pair]]:
        """On 'forget' and 'retain', behind solved ones, worded as in MUSE's code but for a space at the end."""
        folder, found, columns = self.locate(self.path), {}, ("question", "answer")
        for corpus, names in QUESTIONS.items():
            solved = read_rows(folder, SOLVED[corpus], columns)[: self.shots] if self.shots else []
            if len(solved) < self.shots:
                raise DataError(f"{folder}: data.shots={self.shots}: {SOLVED[corpus][0]} has only {len(solved)}")
            before = "".join(f"{_asked(question)} {answer}\n\n" for question, answer in solved)
            asked = read_rows(folder, names, columns)
            found[corpus] = [(before + _asked(question), answer) for question, answer in asked]
        return found

    def pairs(self) -> list[Pair]:
        texts = [("", text) for text in chain(*self.texts.values())]
        return [*texts, *self.passages, *chain(*self.questions.values())]

    def read(self) -> tuple[TensorSet | LanguageRows, TensorSet | LanguageRows]:
        if self.tokenizer.name is not None and self.block_size > self.tokenizer.context:
            raise DataError(f"data.block_size={self.block_size}: the model takes {self.tokenizer.context} at most")
        self.num_classes, self.input_shape = self.tokens.vocabulary, (self.block_size,)
        blocks = {corpus: self._blocks(corpus) for corpus in ("retain", "forget")}
        corpus = torch.tensor([RETAIN] * len(blocks["retain"]) + [FORGET] * len(blocks["forget"]))
        train = self.of_tokens([*blocks["retain"], *blocks["forget"]]).tagged(corpus=corpus)
        say(self.title, self.remarks)
        return train, self.beginnings("held_out")

    def beginnings(self, corpus: str) -> TensorSet | LanguageRows:
        """Samples of the texts of a corpus, each without an end and cut to one row."""
        whole = ([*self._begin, *self.encode(text)] for text in self.texts[corpus])
        return self.of_tokens([_row(tokens[: self.block_size + 1]) for tokens in whole])

    def asked(self, pairs: Sequence[Pair], written: int, cut: bool) -> tuple[TensorSet | LanguageRows, int]:
        """(samples of prompts with what should follow; how many of the prompts lost tokens at their beginning, to leave
        room for `written` tokens and for what should follow). cut: the first `written` tokens of it are enough.
        """
        answers = [self.encode(answer)[: written if cut else None] for _, answer in pairs]
        room = self.block_size - len(self._begin) - max(written, *map(len, answers))
        if room < 1:
            raise DataError(f"data.block_size={self.block_size} leaves no room for a prompt before its answer")
        prompts = [self.encode(prompt) for prompt, _ in pairs]
        found = [([*self._begin, *prompt[-room:]], row) for prompt, row in zip(prompts, answers, strict=True)]
        return self.of_tokens(found), sum(len(prompt) > room for prompt in prompts)

    @property
    def _begin(self) -> list[int]:
        return [] if self.tokenizer.name is None else self.tokenizer.begin

    def _blocks(self, corpus: str) -> list[tuple[list[int], list[int]]]:
        """Rows of the texts of a corpus; the last token of a block is the first of the next."""
        end = [] if self.end is None else [self.end]
        rows = [[*self._begin, *self.encode(text), *end] for text in self.texts[corpus]]
        if self.packed:
            stream = list(chain(*rows))
            rows = [stream[at : at + self.block_size + 1] for at in range(0, len(stream) - 1, self.block_size)]
        elif long := sum(len(row) > self.block_size + 1 for row in rows):
            self.remarks.setdefault(f"texts cut to {self.block_size} tokens", {})[corpus] = long
        return [_row(row[: self.block_size + 1]) for row in rows if len(row) > 1]


def _asked(question: str) -> str:
    """Without the space that ends MUSE's prompt: to byte-pair tokenizers it is a token of its own, and words that begin
    with theirs cannot follow."""
    return f"Question: {question}\nAnswer:"


def _row(tokens: list[int]) -> tuple[list[int], list[int]]:
    """Of a text all tokens but the first are to be predicted."""
    return tokens[:1], tokens[1:]
