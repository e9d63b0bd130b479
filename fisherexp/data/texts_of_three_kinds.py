"""Film reviews, questions and generated radiology reports as one set of texts, for several tasks with one model."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fisherexp.config.types import Count
from fisherexp.content import content
from fisherexp.data.errors import DataError
from fisherexp.data.report_language import report
from fisherexp.data.text_classification import TextClassification
from fisherexp.data.text_columns import text_columns
from fisherexp.data.trec import questions
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.seeds import derive


class Split(NamedTuple):
    """Where the texts of training or testing come from, and how many reports are written beside them."""

    name: str
    reviews: Path
    questions: Path
    reports: int


class TextsOfThreeKinds(TextClassification):
    """Ten classes: of reports, whether they find one condition or several (0, 1); of SST-2's phrases, negative or
    positive (2, 3); of TREC's questions, what they ask for (4 … 9).

    path, test_path: files of SST-2. trec_path, trec_test_path: of TREC. reports, test_reports: how many are written.
    Further options: see TextClassification.
    """

    title = "texts of three kinds"
    num_classes = 10
    class_names = [
        "report: one condition",
        "report: several",
        "review: negative",
        "review: positive",
        "trec: ABBR",
        "trec: DESC",
        "trec: ENTY",
        "trec: HUM",
        "trec: LOC",
        "trec: NUM",
    ]
    paths = ("path", "test_path", "trec_path", "trec_test_path")

    def __init__(
        self,
        path: str,
        tokenizer: Tokenizer,
        test_path: str,
        trec_path: str,
        trec_test_path: str,
        reports: Count = 1000,
        test_reports: Count = 300,
        **options: Any,
    ) -> None:
        super().__init__(path, tokenizer, test_path=test_path, **options)
        if self.splits["validation"]:
            raise DataError(f"{self.title}: data.validation_path is of one kind; scenario.validation puts some aside")
        self.asked = {"train": trec_path, "test": trec_test_path}
        self.counts = {"train": reports, "test": test_reports}

    def files(self) -> dict[str, Split]:
        return {
            split: Split(split, self.locate(self.splits[split]), self.locate(asked), self.counts[split])
            for split, asked in self.asked.items()
        }

    def content(self, file: Split) -> str:
        return f"{content(file.reviews)} {content(file.questions)} {file.name} {file.reports}"

    def labelled(self, file: Split) -> Iterator[tuple[str, str]]:
        reviews = text_columns(file.reviews, self.text, self.label)
        kinds = {"0": "review: negative", "1": "review: positive"}
        return chain(
            ((text, kinds.get(label, f"review: {label}")) for text, label in reviews),
            ((text, f"trec: {kind}") for text, kind in questions(file.questions)),
            reports(file.name, file.reports),
        )

    def read(self) -> tuple[Any, Any]:
        found = super().read()
        if self.class_names != TextsOfThreeKinds.class_names:
            missing = sorted({*TextsOfThreeKinds.class_names} ^ {*self.class_names})
            raise DataError(f"{self.title}: the training files lack or add the class {missing[0]}")
        return found


def reports(split: str, count: int) -> Iterator[tuple[str, str]]:
    """(findings, class) of so many generated reports, others for each split."""
    random = np.random.RandomState(derive("reports of three kinds", split))
    for _ in range(count):
        findings, impression = report(random)
        yield ", ".join(findings), f"report: {'one condition' if len(impression) == 1 else 'several'}"
