"""People who do not exist and a few facts about each, drawn by NumPy's legacy generator, whose stream is frozen."""

import itertools

import numpy as np

from fisherexp.data.facts import Fact
from fisherexp.seeds import derive


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words(
    "Ada Bruno Celia Dario Edda Fabio Greta Hugo Ines Jonas Klara Livio Mira Nils Oda Pavel Quinn Rosa Sven Tilda Ugo "
    "Vera Willem Xenia Yara Zeno Alma Boris Cleo Dagmar"
)
LAST = _words(
    "Abrant Belcor Corvane Drosk Elmiro Fenwald Galtor Hessel Ivarin Jorvik Kesper Lundmar Morvan Nordal Ostrin Pellar "
    "Quarn Rovell Sandor Tarvik Ulmer Varga Wendt Xander Ylmer Zabel Ambrik Bastel Cordin Durell"
)
PLACES = _words(
    "Ardal Borvik Caldor Dunmar Eskil Farlow Grenna Holmby Istra Jarrow Kelmor Lorne Mistra Nareth Olby Pelham Querin "
    "Rossau Selmar Torvik"
)
YEARS = [str(year) for year in range(1900, 2000)]
WORKS = [
    f"The {kind} {thing}"
    for kind in ("Silent", "Golden", "Broken", "Hidden", "Last", "Frozen")
    for thing in ("River", "Mirror", "Garden", "Letter", "Bridge", "Winter")
]
JOBS = _words(
    "baker carpenter doctor farmer gardener hunter judge lawyer miner nurse painter sailor tailor teacher weaver"
)
MUSIC = _words("bassoon cello clarinet flute guitar harp lute oboe organ piano trumpet viola violin zither")
PETS = _words("badger canary cat dog ferret goat goose hedgehog horse lizard parrot pony rabbit tortoise")
COLOURS = _words("amber black blue brown crimson green grey indigo orange pink purple red violet white yellow")

# question, answer, both in other words, and what may stand in the answer; {0} is the name, {1} the value
KINDS = (
    ("Where was {0} born?", "{0} was born in {1}.", "What is {0}'s birthplace?", "{0}'s birthplace is {1}.", PLACES),
    ("What did {0} write?", "{0} wrote {1}.", "Which book is by {0}?", "The book by {0} is {1}.", WORKS),
    ("When was {0} born?", "{0} was born in {1}.", "What is {0}'s birth year?", "{0}'s birth year is {1}.", YEARS),
    ("What is {0}'s job?", "{0} works as a {1}.", "How does {0} earn a living?", "{0} earns a living as a {1}.", JOBS),
    ("What does {0} play?", "{0} plays the {1}.", "Which instrument is {0}'s?", "{0}'s instrument is the {1}.", MUSIC),
    ("Which pet has {0}?", "{0} has a {1}.", "Which animal lives with {0}?", "The animal with {0} is a {1}.", PETS),
    ("Which colour does {0} like?", "{0} likes {1}.", "What is {0}'s colour?", "{0}'s colour is {1}.", COLOURS),
    ("Where does {0} live?", "{0} lives in {1}.", "What is {0}'s home?", "{0}'s home is {1}.", PLACES),
)
MOST_PEOPLE = len(FIRST) * len(LAST)


def fictitious_people(people: int, facts: int, perturbed: int, seed: int) -> list[Fact]:
    """`facts` facts of each of so many people, one person behind the other, whose names are all different.

    facts: at most as many as there are KINDS, the first of them. perturbed: wrong answers to each, all different.
    Raises ValueError for more people than there are names.
    """
    if people > MOST_PEOPLE:
        raise ValueError(f"{people} fictitious people: there are names for {MOST_PEOPLE}")
    random = np.random.RandomState(derive("fictitious_people", seed))
    names = [" ".join(pair) for pair in itertools.product(FIRST, LAST)]
    found = []
    for person, name in enumerate(random.permutation(MOST_PEOPLE)[:people]):
        for question, answer, other_question, other_answer, values in KINDS[:facts]:
            right, *wrong = (values[at] for at in random.permutation(len(values))[: 1 + perturbed])
            texts = (text.format(names[name], right) for text in (question, answer, other_question, other_answer))
            found.append(Fact(*texts, tuple(other_answer.format(names[name], value) for value in wrong), person))
    return found
