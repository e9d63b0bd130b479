"""Sequences that repeat a random block of random length: what comes next is what came after the last time.

Of a fixed length, positions alone would say where to look (Olsson et al. 2022, arXiv 2209.11895, on induction heads).
"""

from typing import Any

import torch

from fisherexp.config.types import ClassCount, Count
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.tensors import TensorSet
from fisherexp.objectives.token_prediction import IGNORED, TokenPrediction
from fisherexp.seeds import generator


class RepeatedBlocks(LabeledData):
    """Samples are `context` tokens, labels the tokens one place further on, int64 (N, T) both; -100 in the first block,
    which nothing foretells.

    n, test_samples: N, drawn apart. vocabulary: number of tokens. context: T. shortest, longest: of a block,
        drawn evenly.
    Further options: see LabeledData. Raises DataError where a block fills the sequence.
    """

    title = "repeated blocks"
    provides = ("tokens", "next_tokens")
    objective = TokenPrediction()
    input_dtype = torch.int64

    def __init__(
        self,
        n: Count = 12800,
        test_samples: Count = 1000,
        vocabulary: ClassCount = 24,
        context: Count = 24,
        shortest: Count = 5,
        longest: Count = 11,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not shortest <= longest < context:
            raise DataError(
                f"data.shortest={shortest}, data.longest={longest}, data.context={context}: these must rise, "
                "the last by 1 or more"
            )
        self.n, self.test_samples, self.context = n, test_samples, context
        self.shortest, self.longest = shortest, longest
        self.num_classes, self.input_shape = vocabulary, (context,)
        self.class_names = [str(token) for token in range(vocabulary)]

    @property
    def architecture_options(self) -> dict[str, Any]:
        return {"input_shape": self.input_shape, "vocabulary": self.num_classes}

    def read(self) -> tuple[TensorSet, TensorSet]:
        return self._drawn("train", self.n), self._drawn("test", self.test_samples)

    def _drawn(self, split: str, count: int) -> TensorSet:
        draws = generator(f"repeated_blocks_{split}", self.seed)
        lengths = torch.randint(self.shortest, self.longest + 1, (count, 1), generator=draws)
        blocks = torch.randint(self.num_classes, (count, self.longest), generator=draws)
        places = torch.arange(self.context + 1)
        tokens = blocks.gather(1, places % lengths)
        following = tokens[:, 1:].masked_fill(places[1:] < lengths, IGNORED)
        return TensorSet(tokens[:, :-1].contiguous(), following)
