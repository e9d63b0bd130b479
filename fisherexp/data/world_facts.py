"""A few dozen things that everybody knows, so that one sees whether a model still does."""

from fisherexp.data.facts import Fact

# question, answer, and what is true of what; the wrong answers are those to the questions that follow
KINDS = (
    (
        "What is the capital of {0}?",
        "The capital of {0} is {1}.",
        {
            "France": "Paris",
            "Italy": "Rome",
            "Spain": "Madrid",
            "Austria": "Vienna",
            "Greece": "Athens",
            "Norway": "Oslo",
            "Japan": "Tokyo",
            "Egypt": "Cairo",
            "Portugal": "Lisbon",
            "Poland": "Warsaw",
        },
    ),
    (
        "What is a young {0} called?",
        "A young {0} is called a {1}.",
        {
            "dog": "puppy",
            "cat": "kitten",
            "sheep": "lamb",
            "cow": "calf",
            "horse": "foal",
            "goose": "gosling",
            "lion": "cub",
            "hen": "chick",
        },
    ),
    (
        "Where is {0}?",
        "{0} is in {1}.",
        {"Kenya": "Africa", "India": "Asia", "Sweden": "Europe", "Peru": "South America", "Canada": "North America"},
    ),
    (
        "What colour is {0}?",
        "The colour of {0} is {1}.",
        {"grass": "green", "snow": "white", "coal": "black", "blood": "red", "a lemon": "yellow"},
    ),
    (
        "What is made from {0}?",
        "From {0} one makes {1}.",
        {"grapes": "wine", "flour": "bread", "milk": "cheese", "clay": "bricks", "sand": "glass", "cocoa": "chocolate"},
    ),
)


def world_facts(perturbed: int) -> list[Fact]:
    """All of them, with so many wrong answers to each (at most four), which are in the words of the answer."""
    found = []
    for question, answer, values in KINDS:
        subjects, rights = list(values), list(values.values())
        for place, (subject, right) in enumerate(values.items()):
            others = (rights[(place + step) % len(subjects)] for step in range(1, 1 + perturbed))
            wrong = tuple(answer.format(subject, other) for other in others)
            asked, told = question.format(subject), answer.format(subject, right)
            found.append(Fact(asked, told, asked, told, wrong))
    return found
