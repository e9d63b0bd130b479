"""Texts as their own words or characters, for models trained here: the counterpart of models.tokenizer.Tokenizer."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from fisherexp.data.errors import DataError

# A word or a sign takes the space before it along, as in GPT-2's tokens: what is cut can be put together again.
PIECES = {"words": re.compile(r" ?\w+| ?[^\w\s]|\s"), "characters": re.compile(r".", re.DOTALL)}


class OwnTokens:
    """The words or characters of some texts, in the order of their code points, behind a token that ends an answer."""

    end = answer_end = padding = 0

    def __init__(self, texts: Iterable[str], unit: Literal["words", "characters"]) -> None:
        self._pieces = PIECES[unit].findall
        self.names = ["<end>", *sorted(set("\n").union(*map(self._pieces, texts)))]
        self._number = {name: token for token, name in enumerate(self.names)}

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self.names)

    def answered(self, prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """(tokens of a prompt and a line break, those of its response with its end) of each pair."""
        pairs = zip(prompts, responses, strict=True)
        return [(self.encode(f"{prompt}\n"), [*self.encode(response), self.end]) for prompt, response in pairs]

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say, without ends."""
        return "".join(self.names[token] for token in tokens if token != self.end)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text. Raises DataError for a piece that is none of those known."""
        pieces = self._pieces(text)
        if unknown := [piece for piece in pieces if piece not in self._number]:
            raise DataError(f"these data have no {unknown[0]!r}, which is in {text!r}")
        return [self._number[name] for name in pieces]
