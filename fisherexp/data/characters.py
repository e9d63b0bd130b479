"""One text file as sequences of characters, each with the character that follows it."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Probability
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.tensors import TensorSet
from fisherexp.objectives.token_prediction import TokenPrediction

ASCII = ["\n", *map(chr, range(32, 127))]  # the end of a line, and what can be printed: 96


class Characters(LabeledData):
    """Samples are `context` characters of a text, labels the characters one place further on: int64 (N, T) both.

    context: T, characters in a sequence. Sequences follow each other without overlap; an incomplete last one is left
        out.
    Further options: see LabeledData. Numbers of samples are numbers of sequences.

    The vocabulary are the characters of an alphabet, in the order of their code points: `class_names`.
    """

    provides = ("tokens", "next_tokens")
    objective = TokenPrediction()
    input_dtype = torch.int64

    def __init__(self, context: Count = 64, **options: Any) -> None:
        super().__init__(**options)
        self.context = context

    @property
    def architecture_options(self) -> dict[str, Any]:
        return {"input_shape": self.input_shape, "vocabulary": self.num_classes}

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(self.class_names[token] for token in tokens)

    def encode(self, text: str) -> list[int]:
        if unknown := sorted(set(text) - set(self.class_names)):
            raise DataError(f"{self.title} has no character {unknown[0]!r}, which is in {text!r}")
        return [self.class_names.index(character) for character in text]

    def spell(self, alphabet: Sequence[str]) -> None:
        """Take the characters that there are."""
        self.class_names = list(alphabet)
        self.num_classes, self.input_shape = len(self.class_names), (self.context,)

    def tokens(self, text: str) -> Tensor:
        """int64 (characters,), places in the alphabet."""
        index = {character: token for token, character in enumerate(self.class_names)}
        return torch.tensor([index[character] for character in text], dtype=torch.int64)


class CharacterText(Characters):
    """One file.

    path: of the file (UTF-8); absolute, or relative to the working directory or the data folder.
    test_share: the end of the text that is held back for testing.
    alphabet: 'own', the distinct characters of the whole text, or 'ascii', the same 96 for any two texts that hold no
        others, so that a model of one can be trained on with the other.
    Further options: see Characters.
    """

    title = "text"

    def __init__(
        self,
        path: str,
        context: Count = 64,
        test_share: Probability = 0.1,
        alphabet: Literal["own", "ascii"] = "own",
        **options: Any,
    ) -> None:
        super().__init__(context, **options)
        self.path, self.test_share, self.alphabet = path, test_share, alphabet

    def read(self) -> tuple[TensorSet, TensorSet]:
        file = self.locate(self.path)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is not a readable UTF-8 text: {error}") from None
        self.spell(ASCII if self.alphabet == "ascii" else sorted(set(text)))
        if others := sorted(set(text) - set(self.class_names)):
            raise DataError(
                f"{file} has {others[0]!r}, which is not one of data.alphabet=ascii; there is data.alphabet=own"
            )
        tokens = self.tokens(text)
        cut = len(tokens) - round(self.test_share * len(tokens))
        if min(cut, len(tokens) - cut) <= self.context:
            raise DataError(
                f"{file} has {len(tokens)} characters, {len(tokens) - cut} of them for testing (data.test_share): "
                f"too few for sequences of data.context={self.context}"
            )
        return sequences(tokens[:cut], self.context), sequences(tokens[cut:], self.context)


def sequences(tokens: Tensor, length: int) -> TensorSet:
    """Consecutive sequences (N, length) of tokens (n,), and the tokens that follow; N = ⌊(n - 1) / length⌋."""
    count = (len(tokens) - 1) // length
    inputs, following = tokens[: count * length], tokens[1 : count * length + 1]
    return TensorSet(inputs.view(count, length), following.view(count, length))
