"""People who do not exist, to be learned and forgotten: generated, in the manner of TOFU (Maini et al. 2024, arXiv
2401.06121)."""

from typing import Any, Literal

from fisherexp.config.types import Count
from fisherexp.data.errors import DataError
from fisherexp.data.fact_data import FactData
from fisherexp.data.facts import Fact
from fisherexp.data.people import MOST_PEOPLE, fictitious_people
from fisherexp.data.world_facts import world_facts
from fisherexp.models.tokenizer import Tokenizer


class FictitiousPeople(FactData):
    """people: how many there are to learn of. facts_per_person: birthplace, book, year of birth, job, instrument, pet,
    colour and home, the first of them. neighbours, held_out: further people. perturbed: wrong answers to each question.
    seed: of all of them, and as in LabeledData. Further options: see FactData.
    """

    title = "fictitious people"

    def __init__(
        self,
        tokenizer: Tokenizer,
        people: Count = 40,
        facts_per_person: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 5,
        neighbours: Count = 5,
        held_out: Count = 8,
        perturbed: Literal[1, 2, 3, 4] = 3,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, **options)
        self.people, self.facts_per_person, self.perturbed = people, facts_per_person, perturbed
        self.neighbours, self.held_out = neighbours, held_out

    @property
    def refusals(self) -> list[str] | None:
        """What their own words can say of nothing."""
        return ["What?"] if self.tokenizer.name is None else None

    def grouped(self) -> dict[str, list[Fact]]:
        total = self.people + self.neighbours + self.held_out
        if total > MOST_PEOPLE:
            raise DataError(f"{self.title}: people, neighbours and held_out are {total}; there are {MOST_PEOPLE} names")
        every = fictitious_people(total, self.facts_per_person, self.perturbed, self.seed)
        first, last = self.people * self.facts_per_person, (self.people + self.neighbours) * self.facts_per_person
        return {
            "people": every[:first],
            "neighbours": every[first:last],
            "world": world_facts(self.perturbed),
            "held_out": every[last:],
        }
