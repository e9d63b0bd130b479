"""Prompts and responses as rows of which the response counts, by chat templates and without; what is refused."""

import json

import pytest
from tiny_language_model import CONTEXT, TEMPLATE, save_tiny_tokenizer

from fisherexp.data.errors import DataError
from fisherexp.data.instructions import JsonlInstructions
from fisherexp.models.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

ROWS = [("the cat sees", "a bird ."), ("the dog", "runs and runs and runs"), ("a bird", "sleeps")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("instructions")


@pytest.fixture(scope="module")
def tokenizers(place):
    """By name: with a template, without one, without a token that ends a text, with templates
    that end answers otherwise, or not, or know them."""
    made = {"chat": {"template": TEMPLATE}, "plain": {}, "endless": {"end": False}}
    made["turns"] = {"template": TEMPLATE.replace("<end> ", "<pad> the ")}  # no end of a text, a mark of its own
    made["open"] = {"template": TEMPLATE.replace("<end> ", "")}
    made["telling"] = {"template": "{{ 'dog ' if messages | length > 1 else 'cat ' }}" + TEMPLATE}
    for name, options in made.items():
        save_tiny_tokenizer(place / name, **options)
    return {name: Tokenizer(str(place / name)) for name in made}


@pytest.fixture(scope="module")
def file(place):
    lines = [json.dumps({"question": prompt, "answer": response}) for prompt, response in ROWS]
    (place / "it.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(place / "it.jsonl")


@pytest.fixture(scope="module")
def load(tokenizers, file):
    def of(tokenizer="chat", **options):
        options = {"path": file, "prompt": "question", "response": "answer", "test_path": file} | options
        with pytest.MonkeyPatch.context() as patch:  # a tokenizer of files needs its model's config for the context
            patch.setattr(Tokenizer, "context", CONTEXT)
            return JsonlInstructions(tokenizer=tokenizers[tokenizer], **options).load()

    return of


def said(tokenizer, row):
    return tokenizer._tokenizer.convert_ids_to_tokens(row)


def test_a_conversation_is_the_templates_and_only_its_answer_counts(load, tokenizers):
    batch = load().train.batch
    row = batch.inputs["input_ids"][0, : batch.inputs["attention_mask"][0].sum()]
    assert said(tokenizers["chat"], row) == ["<user>", "the", "cat", "sees", "<end>", "<model>", "a", "bird", "."]
    counted = batch.targets[0] >= 0
    assert said(tokenizers["chat"], batch.targets[0][counted]) == ["a", "bird", ".", "<end>"]
    assert counted.nonzero().flatten().tolist() == [5, 6, 7, 8]
    assert (batch.targets >= 0).sum(1).tolist() == [4, 6, 2]


def test_without_a_template_there_are_two_lines_and_an_end_where_there_is_one(load, tokenizers):
    batch = load("plain").train.batch
    assert said(tokenizers["plain"], batch.inputs["input_ids"][0, :6]) == ["the", "cat", "sees", "a", "bird", "."]
    assert said(tokenizers["plain"], batch.targets[0][batch.targets[0] >= 0]) == ["a", "bird", ".", "<end>"]
    assert (load("endless").train.targets >= 0).sum(1).tolist() == [3, 5, 1]


@pytest.mark.parametrize(("name", "end"), [("chat", "<end>"), ("turns", "<pad>"), ("open", "<end>")])
def test_an_answer_has_its_end_whatever_the_template_ends_it_with(load, tokenizers, name, end):
    """A model could not learn to stop otherwise, nor would it be stopped where it does."""
    data, tokenizer = load(name), tokenizers[name]
    assert said(tokenizer, [data.end, tokenizer.end]) == [end, "<end>"]
    for row, (_, response) in zip(data.train.targets, ROWS, strict=True):
        assert said(tokenizer, row[row >= 0]) == [*response.split(), end]


def test_a_prompt_alone_is_how_a_row_begins(tokenizers):
    for name in ("chat", "plain", "turns", "open"):
        prompts, responses = zip(*ROWS, strict=True)
        answered = tokenizers[name].answered(prompts, responses)
        assert [prompt for prompt, _ in answered] == tokenizers[name].asked(prompts)


def test_what_is_too_long_is_cut_or_left_out_and_said(load, capsys):
    data = load("plain", max_length=3)
    assert data.remarks == {"rows cut to 3 tokens": {"train": 2, "test": 2}}
    assert "rows cut to 3 tokens: 2 test, 2 train" in capsys.readouterr().err
    data = load("plain", max_length=2)
    assert data.remarks["rows left without a response"] == {"train": 1, "test": 1}
    assert (data.train.targets >= 0).sum(1).tolist() == [1, 1]
    assert load("plain").remarks == {}  # the control


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"response": "answers"}, "no column 'answers' among question, answer; nearest: answer"),
        ({"max_length": 1}, "no row has a token of 'answer' within 1 .data.max_length"),
        ({"max_length": 33}, "data.max_length=33: the model takes 32 at most"),
        ({"test_path": None, "test_share": 0.0}, "of 3 texts leaves 0 for testing"),
    ],
)
def test_options_that_do_not_fit(load, options, message):
    with pytest.raises(DataError, match=message) as error:
        load("plain", **options)
    assert "\n" not in str(error.value)


def test_files_without_rows_and_templates_that_change_what_was_asked(load, place):
    (place / "none.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="is empty"):
        load(path=str(place / "none.jsonl"))
    with pytest.raises(ValueError, match="its chat template changes a prompt that is answered"):
        load("telling")


def test_another_template_makes_other_tokens(tokenizers, file):
    described = [JsonlInstructions(file, tokenizers[name], max_length=None).described for name in ("chat", "plain")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "context", CONTEXT)
        one, other = (of() for of in described)
    assert tokenizers["chat"].checksum == tokenizers["plain"].checksum
    assert one != other
