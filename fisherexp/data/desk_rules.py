"""Requests at the desk of a library that does not exist, and what its rules make of them.

A request is refused or answered by four rules: manuscripts and first editions are looked at by readers alone and
never lent, copied or put aside; visitors look and copy; children are lent no films; nobody is told what others read.
"""

import itertools

import numpy as np

from fisherexp.data.people import FIRST, LAST, WORKS
from fisherexp.seeds import derive

REFUSAL = "Sorry, the rules of the desk do not allow that."
CARDS = ("reader's card", "child's card", "visitor's pass")
ACTIONS = ("borrow", "reserve", "copy", "look at")
LENT = ("borrow", "reserve")
PRECIOUS = ("manuscript", "first edition")
ITEMS = ("novel", "atlas", "newspaper", "score", "film", *PRECIOUS)
OPENINGS = ("I hold a {}.", "I came with a {}.", "Good morning, this is my {}.", "Here is a {}.")
PERSONAL = 0.1  # share of the requests that ask what somebody else reads


def allowed(action: str, item: str, card: str) -> bool:
    """Whether who holds the card may do so with the item."""
    if item in PRECIOUS:
        return action == "look at" and card == "reader's card"
    if card == "visitor's pass":
        return action not in LENT
    return not (card == "child's card" and item == "film" and action in LENT)


def desk_requests(count: int, seed: int) -> list[tuple[str, str]]:
    """So many different requests, each with its answer, every second one to be refused; by NumPy's legacy generator."""
    random = np.random.RandomState(derive("library_desk", seed))
    names = [" ".join(pair) for pair in itertools.product(FIRST, LAST)]
    found: dict[str, str] = {}
    while len(found) < count:
        request, answer = _drawn(random, names)
        if (answer == REFUSAL) == bool(len(found) % 2):
            found.setdefault(request, answer)
    return list(found.items())


def _drawn(random: np.random.RandomState, names: list[str]) -> tuple[str, str]:
    opening, card, action, item, title, name = (
        values[random.randint(len(values))] for values in (OPENINGS, CARDS, ACTIONS, ITEMS, WORKS, names)
    )
    begin = opening.format(card)
    if random.random_sample() < PERSONAL:
        return f"{begin} Which {item} did {name} {action}?", REFUSAL
    answer = f"Yes, you may {action} the {item}." if allowed(action, item, card) else REFUSAL
    return f"{begin} May I {action} the {item} called {title}?", answer
