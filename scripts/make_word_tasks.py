"""Instructions with one right answer, drawn from a seed, for `data=jsonl_instructions`.

    python scripts/make_word_tasks.py word_tasks.jsonl --rows 400 --seed 0

A row asks to sort words, to turn their order around, to name the longest or to count them. The same seed makes the same
file on every machine; no row is twice in it.
"""

import argparse
import json
import random
from pathlib import Path

WORDS = [
    "apple",
    "river",
    "window",
    "garden",
    "silver",
    "basket",
    "candle",
    "yellow",
    "mountain",
    "paper",
    "bridge",
    "winter",
    "summer",
    "kitchen",
    "letter",
    "music",
    "ocean",
    "planet",
    "rabbit",
    "school",
    "tiger",
    "village",
    "wagon",
    "zebra",
    "anchor",
    "butter",
    "castle",
    "dragon",
    "engine",
    "forest",
    "guitar",
    "hammer",
    "island",
    "jacket",
]
TASKS = {
    "Sort these words by the alphabet: {}.": lambda words: ", ".join(sorted(words)),
    "Write these words in the opposite order: {}.": lambda words: ", ".join(reversed(words)),
    "Which of these words has the most letters: {}?": lambda words: max(words, key=len),
    "How many words are these: {}?": lambda words: str(len(words)),
}


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """So many different rows {prompt, response}; of words of equal length the first counts as the longest."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        task, words = draw.choice(list(TASKS)), draw.sample(WORDS, draw.randint(3, 6))
        found[task.format(", ".join(words))] = TASKS[task](words)
    return [{"prompt": prompt, "response": response} for prompt, response in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.file.write_text("".join(json.dumps(row) + "\n" for row in rows(options.rows, options.seed)))


if __name__ == "__main__":
    main()
