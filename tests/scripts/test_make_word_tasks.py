"""Instructions are the same for the same seed, all different, and answered rightly."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "scripts" / "make_word_tasks.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_word_tasks", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_come_from_their_seed(script):
    found = script.rows(200, seed=1)
    assert found == script.rows(200, seed=1)
    assert found != script.rows(200, seed=2)
    assert len({row["prompt"] for row in found}) == 200


def test_answers_by_hand(script):
    answers = {task.split()[0]: answer(["pear", "fig", "apple"]) for task, answer in script.TASKS.items()}
    assert answers == {"Sort": "apple, fig, pear", "Write": "apple, fig, pear", "Which": "apple", "How": "3"}
