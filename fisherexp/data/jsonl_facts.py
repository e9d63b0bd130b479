"""The user's own facts, in files with the columns of TOFU's (Maini et al. 2024, arXiv 2401.06121)."""

from typing import Any

from fisherexp.config.types import Count
from fisherexp.data.errors import DataError
from fisherexp.data.fact_data import FactData
from fisherexp.data.facts import Fact, read_facts
from fisherexp.models.tokenizer import Tokenizer

OPTIONS = {"people": "path", "neighbours": "neighbours_path", "world": "world_path", "held_out": "held_out_path"}


class JsonlFacts(FactData):
    """Files of rows as facts.read_facts takes them; absolute, or relative to the working directory or the data folder.

    path: of the people to learn of. facts_per_person: so many rows, one behind the other, are about one person.
    neighbours_path, world_path, held_out_path: of the other groups. Further options: see FactData.
    """

    title = "facts from files"
    paths = ("path", "neighbours_path", "world_path", "held_out_path")

    def __init__(
        self,
        path: str,
        neighbours_path: str,
        world_path: str,
        held_out_path: str,
        tokenizer: Tokenizer,
        facts_per_person: Count = 20,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, **options)
        self.files = dict(zip(OPTIONS, (path, neighbours_path, world_path, held_out_path), strict=True))
        self.facts_per_person = facts_per_person

    def grouped(self) -> dict[str, list[Fact]]:
        found = {}
        for group, file in self.files.items():
            place = self.locate(file)
            found[group] = read_facts(place, self.facts_per_person if group == "people" else None)
            if group != "held_out" and not all(fact.perturbed_answers for fact in found[group]):
                raise DataError(f"{place}: some rows have no 'perturbed_answer', and the truth ratio needs them")
        return found
