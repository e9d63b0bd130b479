"""Whole people are forgotten, and what is asked afterwards is of the right ones."""

import pytest
import torch

from fisherexp.data.fictitious_people import FictitiousPeople
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.scenarios.facts import FactForgetting


@pytest.fixture(scope="module")
def data():
    return FictitiousPeople(Tokenizer(None), people=20, facts_per_person=3, neighbours=2, held_out=2).load()


@pytest.mark.parametrize(("fraction", "people"), [(0.05, 1), (0.1, 2), (0.5, 10)])
def test_people_are_forgotten_not_rows(data, fraction, people):
    setting = FactForgetting(fraction).setting(data, seed=0)
    whom = setting.about["forgotten_people"]
    assert len(whom) == people
    forgotten, retained = ([data.facts[at] for at in setting.parts[p].tags["fact"]] for p in ("forget", "retain"))
    assert sorted(fact.person for fact in forgotten) == [person for person in whom for _ in range(3)]
    of_people = data.groups["people"]
    assert not any(fact.person in whom for fact in retained if fact in of_people)
    assert len(forgotten) + len(retained) == len(data.train)
    assert all(fact in retained for group in ("neighbours", "world") for fact in data.groups[group])


def test_who_follows_the_seed_or_comes_last(data):
    def whom(seed, **options):
        return FactForgetting(0.1, **options).setting(data, seed).about["forgotten_people"]

    assert whom(0) == whom(0) != whom(1)
    assert whom(0, people="last") == whom(1, people="last") == [18, 19]


def test_answers_are_asked_in_every_form(data):
    setting = FactForgetting(0.1, evaluated=7).setting(data, seed=0)
    parts = setting.parts
    counts = {name: len(parts[name]) for name in setting.evaluated}
    neighbours, world = (len(data.groups[group]) for group in ("neighbours", "world"))
    for group, count in {"retain": 7, "neighbours": neighbours, "world": world, "forget": 6}.items():
        assert [counts[f"{group}_{form}"] for form in ("answers", "reworded", "wrong")] == [count, count, 3 * count]
    assert (counts["forget_rephrased"], counts["held_out_answers"]) == (6, 6)
    at = setting.parts["forget"].tags["fact"].tolist()
    for row, wrong in enumerate(parts["forget_wrong"].targets):
        fact = data.facts[at[setting.evaluation().fact["forget"][row]]]
        assert data.text(wrong[wrong >= 0].tolist()) in fact.perturbed_answers
    assert torch.equal(parts["forget_answers"].targets, parts["forget"].targets)


@pytest.mark.parametrize(("fraction", "whom"), [(0.02, "nobody"), (1.0, "everybody")])
def test_somebody_is_forgotten_and_somebody_stays(data, fraction, whom):
    with pytest.raises(ValueError, match=f"of 20 people is {whom}; one of them: scenario.fraction=0.05"):
        FactForgetting(fraction).setting(data, seed=0)
