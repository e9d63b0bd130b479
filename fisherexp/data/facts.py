"""Facts as questions with a right answer, the same in other words, and wrong answers, as in TOFU (arXiv 2401.06121)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisherexp.config.problem import nearest
from fisherexp.data.errors import DataError

OPTIONAL = ("paraphrased_question", "paraphrased_answer", "perturbed_answer")


@dataclass(frozen=True)
class Fact:
    """question, answer: what is learned. paraphrased_question, paraphrased_answer: the same in other words, or where
    there are none the same again. perturbed_answers: like the paraphrased answer, but wrong. person: the number of whom
    it is about; None where that does not matter.
    """

    question: str
    answer: str
    paraphrased_question: str
    paraphrased_answer: str
    perturbed_answers: tuple[str, ...] = ()
    person: int | None = None


def read_facts(path: Path, facts_per_person: int | None = None) -> list[Fact]:
    """The rows of a .jsonl file with TOFU's columns: question, answer, and where there are such paraphrased_question,
    paraphrased_answer, perturbed_answer (a text or a list of texts).

    facts_per_person: so many rows, one behind the other, are about one person; None: about nobody.
    Raises DataError, in one line, for what is unreadable, empty, no JSON, or without a question or an answer.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON may hold what else splitlines() takes for ends
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    rows = [_row(f"{path}: line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"{path} is empty: it has no row")
    if facts_per_person and len(rows) % facts_per_person:
        raise DataError(f"{path}: {len(rows)} rows are no multiple of data.facts_per_person={facts_per_person}")
    return [
        Fact(
            row["question"],
            row["answer"],
            row.get("paraphrased_question", row["question"]),
            row.get("paraphrased_answer", row["answer"]),
            tuple(row.get("perturbed_answer", ())),
            number // facts_per_person if facts_per_person else None,
        )
        for number, row in enumerate(rows)
    ]


def _row(where: str, line: str) -> Mapping[str, Any]:
    """The columns of one line that count; perturbed_answer is a list."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is no object of names and values")
    for column in ("question", "answer"):
        if column not in row:
            near = nearest(column, list(row))
            hint = f"; nearest: {near}" if near else ""
            raise DataError(f"{where}: there is no column '{column}' among {', '.join(row) or 'none'}{hint}")
    found = {name: row[name] for name in ("question", "answer", *OPTIONAL) if row.get(name) is not None}
    if isinstance(found.get("perturbed_answer"), str):
        found["perturbed_answer"] = [found["perturbed_answer"]]
    for column, value in found.items():
        texts = value if column == "perturbed_answer" and isinstance(value, list) else [value]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f"{where}: '{column}' holds something that is no text, or an empty one")
    for column in ("question", "answer"):
        if column not in found:
            raise DataError(f"{where} has no '{column}'")
    return found
