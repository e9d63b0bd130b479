"""Facts: made from a seed, true of the world, read from files with TOFU's columns; and as rows of tokens."""

import json

import pytest
import torch

from fisherexp.data.errors import DataError
from fisherexp.data.facts import Fact, read_facts
from fisherexp.data.fictitious_people import FictitiousPeople
from fisherexp.data.jsonl_facts import JsonlFacts
from fisherexp.data.own_tokens import OwnTokens
from fisherexp.data.people import KINDS, MOST_PEOPLE, fictitious_people
from fisherexp.data.world_facts import world_facts
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.scenarios.facts import FactForgetting

NO_TOKENIZER = Tokenizer(None)


@pytest.fixture(scope="module")
def data():
    return FictitiousPeople(NO_TOKENIZER, people=6, facts_per_person=3, neighbours=2, held_out=2).load()


def test_people_follow_the_seed_and_have_names_of_their_own():
    one, again, other = (fictitious_people(20, len(KINDS), 4, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert [fact.person for fact in one] == [number for number in range(20) for _ in KINDS]
    names = {fact.question.removeprefix("Where was ").removesuffix(" born?") for fact in one[:: len(KINDS)]}
    assert len(names) == 20
    with pytest.raises(ValueError, match=f"there are names for {MOST_PEOPLE}"):
        fictitious_people(MOST_PEOPLE + 1, 1, 1, 0)


@pytest.mark.parametrize("facts", [fictitious_people(30, len(KINDS), 4, 0), world_facts(4)], ids=["people", "world"])
def test_answers_in_other_words_say_the_same_and_wrong_ones_something_else(facts):
    """What differs between the reworded answer and a wrong one is the value, which is that of the answer."""
    for fact in facts:
        assert len({fact.paraphrased_answer, *fact.perturbed_answers}) == 5
        right = fact.paraphrased_answer.split()
        for wrong in map(str.split, fact.perturbed_answers):
            head = next(i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b)
            assert right[head].strip(".") in fact.answer.replace(".", "").split()
            assert wrong[:head] == right[:head]


def test_questions_are_asked_once():
    questions = [fact.question for fact in world_facts(1) + fictitious_people(40, len(KINDS), 1, 0)]
    assert len(set(questions)) == len(questions)
    assert len(world_facts(1)) > 30


def test_own_tokens_can_be_put_together_again():
    texts = ["What is Ada's job?", "Ada works\n as a  baker.", "ÅÄ 1934"]
    for unit, pieces in (("words", 7), ("characters", len(texts[0]))):
        tokens = OwnTokens(texts, unit)
        (prompt, answer), *_ = tokens.answered(texts[:1], texts[1:2])
        assert tokens.text(prompt) == texts[0] + "\n"
        assert (tokens.text(answer), answer[-1], len(prompt)) == (texts[1], tokens.end, pieces + 1)
        assert tokens.vocabulary == 1 + max(max(row) for pair in tokens.answered(texts, texts) for row in pair)


def test_any_text_in_known_words_has_tokens(data):
    assert data.text(data.encode("What?")) == "What?"
    with pytest.raises(DataError, match="these data have no ' dodo', which is in 'What dodo"):
        data.encode("What dodo")


def test_only_answers_count_and_every_row_says_its_fact(data):
    assert [len(facts) for facts in data.groups.values()] == [18, 6, len(world_facts(1)), 6]
    for samples in (data.train, data.test):
        for tokens, targets, at in zip(samples.inputs, samples.targets, samples.tags["fact"].tolist(), strict=True):
            fact, counted = data.facts[at], targets >= 0
            assert data.text(targets[counted].tolist()) == fact.answer
            first = int(counted.int().argmax())
            assert data.text(tokens[: first + 1].tolist()) == fact.question + "\n"
            assert targets[counted][-1] == data.end
    assert data.test.tags["fact"].tolist() == list(range(len(data.facts) - 6, len(data.facts)))
    assert data.blank(2).shape == (2, *data.input_shape) == data.train.inputs[:2].shape


def test_what_is_not_learned_is_not_in_the_training_rows(data):
    pretrained = FictitiousPeople(NO_TOKENIZER, people=6, facts_per_person=3, learn_all=False).load()
    assert len(pretrained.train) == 18
    assert len(data.train) == 18 + 6 + len(world_facts(1))  # the control


def test_a_model_with_a_tokenizer_need_not_be_told_of_the_world():
    assert not FictitiousPeople(Tokenizer("some folder")).learn_all
    assert FictitiousPeople(Tokenizer("some folder"), learn_all=True).learn_all


def test_rows_of_any_answers_are_as_wide_as_what_was_read(data):
    fact = data.facts[0]
    rows = data.rows([(fact.question, wrong) for wrong in fact.perturbed_answers])
    assert rows.inputs.shape == (3, *data.input_shape)
    assert [data.text(row[row >= 0].tolist()) for row in rows.targets] == list(fact.perturbed_answers)


ROW = {"question": "Who?", "answer": "Ada.", "paraphrased_answer": "It is Ada.", "perturbed_answer": ["It is Bo."]}


@pytest.fixture
def write(tmp_path):
    def rows(name, *lines):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return rows


def test_columns_are_tofus_and_those_in_other_words_may_be_missing(write):
    bare = {"question": "Where?", "answer": "Here.", "perturbed_answer": "There."}
    found = read_facts(write("it.jsonl", ROW, bare), facts_per_person=1)
    assert found[0] == Fact("Who?", "Ada.", "Who?", "It is Ada.", ("It is Bo.",), 0)
    assert found[1] == Fact("Where?", "Here.", "Where?", "Here.", ("There.",), 1)


def test_signs_that_end_lines_elsewhere_end_no_row(write):
    row = ROW | {"answer": "Ada,\u2028of\x85\x0cHere."}
    (fact,) = read_facts(write("it.jsonl", json.dumps(row, ensure_ascii=False)))
    assert fact.answer == row["answer"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([ROW | {"answer": 3}], "line 1: 'answer' holds something that is no text"),
        ([ROW, {"question": "Who?", "anwser": "Ada."}], "line 2: there is no column 'answer' .* nearest: anwser"),
        ([ROW, "{"], "line 2 is no JSON"),
        (["3"], "line 1 is no object"),
        ([ROW | {"perturbed_answer": [""]}], "line 1: 'perturbed_answer' holds something"),
        ([ROW | {"answer": None}], "line 1 has no 'answer'"),
        ([""], "is empty"),
        ([ROW, ROW, ROW], "3 rows are no multiple of data.facts_per_person=2"),
    ],
)
def test_files_that_do_not_fit_are_one_line(write, lines, message):
    with pytest.raises(DataError, match=message) as error:
        read_facts(write("it.jsonl", *lines), facts_per_person=2)
    assert "\n" not in str(error.value)


def test_own_files_are_the_four_groups(write):
    files = [str(write(f"{name}.jsonl", ROW, ROW)) for name in ("people", "neighbours", "world", "held_out")]
    data = JsonlFacts(*files, NO_TOKENIZER, facts_per_person=1).load()
    assert (len(data.train), len(data.test)) == (6, 2)
    assert torch.equal(data.train.inputs[0], data.test.inputs[0])
    write("world.jsonl", {"question": "Who?", "answer": "Ada."})
    with pytest.raises(DataError, match=r"world.jsonl: some rows have no 'perturbed_answer'"):
        JsonlFacts(*files, NO_TOKENIZER, facts_per_person=1).load()


def test_wrong_answers_may_be_in_files_of_their_own(write):
    """As TOFU's are: its full set has questions and answers alone."""
    bare = [{"question": f"Who is {name}?", "answer": name} for name in ("Ada", "Bo", "Cy", "Di")]
    others = [str(write(f"{name}.jsonl", ROW)) for name in ("neighbours", "world", "held_out")]
    people, options = str(write("full.json", *bare)), {"facts_per_person": 1}
    forget, retain = ([row | {"perturbed_answer": ["Ed"]} for row in rows] for rows in (bare[3:], bare[1:2]))
    files = [str(write("forget.json", *forget)), str(write("retain.json", *retain))]
    scenario = FactForgetting(0.25, people="last")

    def asked(**more):
        return scenario.setting(JsonlFacts(people, *others, NO_TOKENIZER, **options, **more).load(), seed=0)

    setting = asked(perturbed_paths=files)
    assert setting.about["facts"] == {"retain": 1, "neighbours": 1, "world": 1, "forget": 1}
    assert [len(setting.parts[part]) for part in ("forget", "retain")] == [1, 5]  # the two without are learned, too
    with pytest.raises(ValueError, match="1 facts to be forgotten have no wrong answers"):
        asked()
    with pytest.raises(ValueError, match="no fact of those who stay has any wrong answers"):
        asked(perturbed_paths=files[:1])
    with pytest.raises(DataError, match=r"world\.jsonl: no row has a question and an answer of data\.path="):
        asked(perturbed_paths=[others[1]])
