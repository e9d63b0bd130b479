"""The user's own facts, in files with the columns of TOFU's (Maini et al. 2024, arXiv 2401.06121)."""

from dataclasses import replace
from typing import Any

from fisherexp.config.types import AtLeastOne, Count
from fisherexp.data.errors import DataError
from fisherexp.data.fact_data import FactData
from fisherexp.data.facts import Fact, read_facts
from fisherexp.models.tokenizer import Tokenizer

OPTIONS = {"people": "path", "neighbours": "neighbours_path", "world": "world_path", "held_out": "held_out_path"}


class JsonlFacts(FactData):
    """Files of rows as facts.read_facts takes them; absolute, or relative to the working directory or the data folder.

    path: of the people to learn of. facts_per_person: so many rows, one behind the other, are about one person.
    neighbours_path, world_path, held_out_path: of the other groups. perturbed_paths: files that give some questions and
    answers of `path` other words and wrong answers, as TOFU's forget10_perturbed and retain_perturbed do for its full
    set; only people's facts with wrong answers can be forgotten or asked after. Further options: see FactData.
    """

    title = "facts from files"
    paths = ("path", "neighbours_path", "world_path", "held_out_path", "perturbed_paths")

    def __init__(
        self,
        path: str,
        neighbours_path: str,
        world_path: str,
        held_out_path: str,
        tokenizer: Tokenizer,
        facts_per_person: Count = 20,
        perturbed_paths: AtLeastOne[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, **options)
        self.files = dict(zip(OPTIONS, (path, neighbours_path, world_path, held_out_path), strict=True))
        self.facts_per_person, self.perturbed_paths = facts_per_person, perturbed_paths or []

    def grouped(self) -> dict[str, list[Fact]]:
        found = {}
        for group, file in self.files.items():
            place = self.locate(file)
            found[group] = read_facts(place, self.facts_per_person if group == "people" else None)
            if group in ("neighbours", "world") and not all(fact.perturbed_answers for fact in found[group]):
                raise DataError(f"{place}: some rows have no 'perturbed_answer', and the truth ratio needs them")
        return found | {"people": self._perturbed(found["people"])}

    def _perturbed(self, facts: list[Fact]) -> list[Fact]:
        """The same facts, with what `perturbed_paths` say of them."""
        asked = {(fact.question, fact.answer) for fact in facts}
        found: dict[tuple[str, str], Fact] = {}
        for path in self.perturbed_paths:
            rows = {(fact.question, fact.answer): fact for fact in read_facts(self.locate(path))}
            if not asked & rows.keys():
                raise DataError(f"{path}: no row has a question and an answer of data.path={self.files['people']}")
            found |= rows
        return [replace(found.get((fact.question, fact.answer), fact), person=fact.person) for fact in facts]
