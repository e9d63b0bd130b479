"""Phrases and sentences of film reviews, negative or positive (Socher et al. 2013; GLUE: Wang et al. 2018)."""

from pathlib import Path
from typing import Any

from fisherexp.data.errors import DataError
from fisherexp.data.text_classification import TextClassification
from fisherexp.models.tokenizer import Tokenizer


class Sst2(TextClassification):
    """GLUE's SST-2: of its 67,349 texts for training 60,614, the others (heldout.tsv) being there to choose on, and its
    development set of 872 for testing; the labels of GLUE's own test set are not public. Options: see
    TextClassification.
    """

    title = "SST-2"
    num_classes = 2
    class_names = ["negative", "positive"]

    def __init__(self, path: str, tokenizer: Tokenizer, **options: Any) -> None:
        super().__init__(path, tokenizer, **options)

    def read(self) -> tuple[Any, Any]:
        found = super().read()
        if self.class_names != ["0", "1"]:
            raise DataError(f"{self.title}: labels are {', '.join(self.class_names)}; 0 and 1 are expected")
        self.class_names = Sst2.class_names
        return found

    def locate(self, path: str) -> Path:
        try:
            return super().locate(path)
        except DataError as error:
            raise DataError(f"{error}; files of GLUE's SST-2, with a header of sentence and label") from None
