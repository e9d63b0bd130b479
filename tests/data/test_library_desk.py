"""Requests at a library's desk: what its rules allow, drawn from a seed, half refused, none both learned and asked."""

import itertools

import pytest

from fisherexp.data.desk_rules import ACTIONS, CARDS, ITEMS, REFUSAL, allowed, desk_requests
from fisherexp.data.library_desk import LibraryDesk
from fisherexp.models.tokenizer import Tokenizer

REFUSED = {  # by hand, from the rules as they are worded
    *itertools.product(ACTIONS, ("manuscript", "first edition"), ("child's card", "visitor's pass")),
    *itertools.product(("borrow", "reserve", "copy"), ("manuscript", "first edition"), ("reader's card",)),
    *itertools.product(("borrow", "reserve"), ITEMS, ("visitor's pass",)),
    *itertools.product(("borrow", "reserve"), ("film",), ("child's card",)),
}


def test_the_rules():
    assert {case for case in itertools.product(ACTIONS, ITEMS, CARDS) if not allowed(*case)} == REFUSED


def test_requests_follow_the_seed_and_every_second_one_is_refused():
    one, again, other = (desk_requests(60, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert len(dict(one)) == 60
    assert [answer == REFUSAL for _, answer in one] == 30 * [False, True]
    assert desk_requests(20, 0) == one[:20]


def test_answers_are_those_of_the_rules():
    asked = [(request, answer) for request, answer in desk_requests(200, 3) if "May I" in request]
    for request, answer in asked:
        (action,) = (action for action in ACTIONS if f"May I {action} the" in request)
        (item,) = (item for item in ITEMS if f" the {item} called" in request)
        (card,) = (card for card in CARDS if card in request)
        assert (answer == REFUSAL) == ((action, item, card) in REFUSED)
    assert 100 < len(asked) < 200
    assert {answer for request, answer in desk_requests(200, 3) if "May I" not in request} == {REFUSAL}


@pytest.mark.parametrize("unit", ["words", "characters"])
def test_rows_ask_and_answer_and_none_is_in_both_parts(unit):
    data = LibraryDesk(Tokenizer(None), requests=12, test_requests=6, unit=unit).load()
    pairs = desk_requests(18, 0)
    assert (len(data.train), len(data.test)) == (12, 6)
    for part, own in ((data.train, pairs[:12]), (data.test, pairs[12:])):
        for tokens, labels, (request, answer) in zip(part.inputs, part.targets, own, strict=True):
            assert data.text(labels[labels >= 0].tolist()) == answer
            assert data.text(tokens.tolist()).startswith(f"{request}\n")
