"""Questions by what they ask for: six kinds (Li, Roth 2002, TREC)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fisherexp.data.errors import DataError
from fisherexp.data.text_classification import TextClassification
from fisherexp.models.tokenizer import Tokenizer


class Trec(TextClassification):
    """5,452 questions for training, 500 for testing; a line is `COARSE:fine question`, and COARSE is the class.

    Options: see TextClassification.
    """

    title = "TREC"
    num_classes = 6
    class_names = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]

    def __init__(self, path: str, tokenizer: Tokenizer, **options: Any) -> None:
        super().__init__(path, tokenizer, **options)

    def labelled(self, path: Path) -> Iterator[tuple[str, str]]:
        return questions(path)


def questions(path: Path) -> Iterator[tuple[str, str]]:
    """(question, what it asks for) of each line of a file. Raises DataError for a line of another form."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                kind, _, question = line.strip().partition(" ")
                coarse = kind.partition(":")[0]
                if coarse not in Trec.class_names or not question:
                    raise DataError(f"{path}: line {number} is not of the form COARSE:fine question")
                yield question, coarse
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable UTF-8 text: {error}") from None
