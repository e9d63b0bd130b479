"""Texts as data: what is read, kept, cut and refused, with a tokenizer of words in the place of a model's."""

import json
from pathlib import Path

import pytest
import torch
from word_tokenizer import Words

from fisherexp.config.explain import composed, explain
from fisherexp.config.validate import validate
from fisherexp.data.errors import DataError
from fisherexp.data.sst2 import Sst2
from fisherexp.data.text_classification import TextClassification
from fisherexp.data.trec import Trec
from fisherexp.models.tokenizer import ENDLESS
from fisherexp.runs.store import ArtefactStore


def write(file: Path, *rows: tuple[str, str]) -> str:
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return str(file)


@pytest.fixture
def files(tmp_path):
    train = write(tmp_path / "train.tsv", ("a bb ccc", "10"), ("dd", "9"), ("a a a a a a a a", "10"))
    test = write(tmp_path / "test.tsv", ("ccc a", "9"))
    return {"path": train, "test_path": test}


def test_tokens_lengths_and_classes(files):
    data = TextClassification(tokenizer=Words(), **files).load()
    assert data.class_names == ["9", "10"]  # numbers in their order
    assert data.train.targets.tolist() == [1, 0, 1]
    assert data.train.inputs["input_ids"].tolist()[0] == [1, 2, 3, 0, 0, 0]
    assert data.test.inputs["attention_mask"].sum().item() == 2
    assert data.architecture_options == {"input_shape": (6,), "vocabulary": 30}
    assert {name: tensor.shape for name, tensor in data.blank(4).items()} == {
        "input_ids": (4, 6),
        "attention_mask": (4, 6),
    }


def test_what_is_too_long_is_cut_counted_and_said_once(files, capsys):
    for _ in range(2):
        data = TextClassification(tokenizer=Words(), max_length=2, **files).load()
    assert data.remarks == {"texts cut to 2 tokens": {"train": 2}}
    assert capsys.readouterr().err.count("texts cut to 2 tokens: 2 train") == 1
    assert TextClassification(tokenizer=Words(), max_length=6, **files).load().train.lengths.tolist() == [3, 1, 6]


def test_tokens_are_kept_by_content(files, tmp_path):
    def load(tokenizer, **options):
        data = TextClassification(tokenizer=tokenizer, **files | options)
        data.store = ArtefactStore(tmp_path / "store")
        return data.load()

    first, again, other = Words(), Words(), Words()
    other.checksum = "others"
    assert load(first).checksum() == load(again).checksum()
    assert (first.asked, again.asked) == (2, 0)
    load(other)
    load(again, max_length=2)
    assert (other.asked, again.asked) == (2, 2)


def test_validation_by_file_or_by_share(files):
    one = TextClassification(tokenizer=Words(), validation_path=files["test_path"], **files).load()
    assert (len(one.train), len(one.validation)) == (3, 1)
    other = TextClassification(tokenizer=Words(), validation=0.34, **files).load()
    assert (len(other.train), len(other.validation)) == (2, 1)
    with pytest.raises(DataError, match="set one"):
        TextClassification(tokenizer=Words(), validation=0.5, validation_path=files["test_path"], **files).load()


def test_without_a_test_file_a_share_is_drawn(files):
    data = TextClassification(path=files["path"], tokenizer=Words(), test_share=0.34).load()
    assert (len(data.train), len(data.test)) == (2, 1)
    with pytest.raises(DataError, match=r"test_share=0\.1 of 3 texts leaves 0"):
        TextClassification(path=files["path"], tokenizer=Words(), test_share=0.1).load()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_length": 7}, "data.max_length=7: the model takes 6 at most"),
        ({"test_path": "nowhere.tsv"}, "there is no 'nowhere.tsv'"),
        ({"text": "texts"}, "no column 'texts' among text, label; nearest: text"),
    ],
)
def test_options_that_do_not_fit(options, said, files):
    with pytest.raises(DataError, match=said):
        TextClassification(tokenizer=Words(), **files | options).load()


def test_rows_are_not_padded_to_an_end_that_there_is_not(files):
    endless = Words()
    endless.context = ENDLESS
    assert TextClassification(tokenizer=endless, **files).load().remarks == {}
    with pytest.raises(DataError, match=r"texts of any length; set data\.max_length"):
        TextClassification(tokenizer=endless, padding="max_length", **files).load()


def test_labels_that_training_texts_do_not_have(files, tmp_path):
    test = write(tmp_path / "other.tsv", ("a", "positive"))
    with pytest.raises(DataError, match="no training text has the label positive; they have 10, 9"):
        TextClassification(tokenizer=Words(), **files | {"test_path": test}).load()
    with pytest.raises(DataError, match="every text has the label 'positive'"):
        TextClassification(path=test, tokenizer=Words()).load()


def test_a_text_of_which_no_token_is_left(tmp_path):
    class Deaf(Words):
        def rows(self, texts, length):
            rows, cut = super().rows(texts, length)
            return [[token for token in row if token < 4] for row in rows], cut

    file = write(tmp_path / "it.tsv", ("a bb", "1"), ("a bbbb", "0"), ("cccc", "0"), ("a", "1"), ("b", "1"))
    assert TextClassification(file, Words()).load().num_classes == 2  # the control
    with pytest.raises(DataError, match="the tokenizer knows nothing of the text 'cccc': it has no token"):
        TextClassification(file, Deaf()).load()


def test_space_around_a_label_makes_no_class_of_its_own(tmp_path):
    file = write(tmp_path / "it.tsv", ("good", "1"), ("bad", "0"), ("fine", "1 "))
    data = TextClassification(file, Words(), test_path=file).load()
    assert data.class_names == ["0", "1"]
    assert data.train.targets.tolist() == [1, 0, 1]


def test_sst2_and_trec(tmp_path):
    columns = {"text": "text", "label": "label"}
    train = write(tmp_path / "train.tsv", ("good", "1"), ("bad", "0"))
    data = Sst2(train, Words(), test_path=train, **columns).load()
    assert data.class_names == ["negative", "positive"]
    assert data.train.targets.tolist() == [1, 0]
    other = write(tmp_path / "other.tsv", ("good", "yes"), ("bad", "no"))
    with pytest.raises(DataError, match="labels are no, yes; 0 and 1 are expected"):
        Sst2(other, Words(), test_path=other, **columns).load()

    lines = [f"{name}:x what is it ?" for name in Trec.class_names]
    (tmp_path / "trec.txt").write_text("\n".join(lines), encoding="utf-8")
    data = Trec(str(tmp_path / "trec.txt"), Words(), test_path=str(tmp_path / "trec.txt")).load()
    assert torch.equal(data.train.targets, torch.arange(6))
    (tmp_path / "trec.txt").write_text("what is it ?", encoding="utf-8")
    with pytest.raises(DataError, match="line 1 is not of the form"):
        Trec(str(tmp_path / "trec.txt"), Words()).load()
    (tmp_path / "trec.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"trec\.txt is empty: it has no row"):
        Trec(str(tmp_path / "trec.txt"), Words()).load()


@pytest.mark.parametrize(
    ("line", "option", "near"),
    [
        (["data=sst2", "model=small_cnn"], "model", "model=huggingface"),
        (["data=sst2", "model=char_gpt"], "model", "model=huggingface"),
        (["data=digits", "model=minilm"], "model", None),
        (["data=tiny_shakespeare", "model=minilm"], "model", None),
        (["data=sst2", "model=minilm", "scenario=continual", "method=tent"], "scenario", None),
    ],
)
def test_models_of_something_else_are_refused(line, option, near):
    problems = validate(composed(["method=erm", *line] if "method=tent" not in line else line))
    found = [problem for problem in problems if problem.option == option]
    assert found, problems
    assert near is None or found[0].nearest == near


def test_a_model_of_text_brings_its_training_unless_another_is_chosen():
    assert composed(["method=erm", "model=minilm", "data=sst2"]).training.optimizer == "adamw"
    assert composed(["method=erm", "model=minilm", "data=sst2", "training=small"]).training.optimizer == "sgd"
    assert composed(["method=erm"]).training.optimizer == "sgd"


def test_a_validation_file_is_something_to_choose_on():
    line = ["method=erm", "model=minilm", "data=sst2", "evaluate_on=validation"]
    assert [problem.option for problem in validate(composed(line))] == ["data.validation=0.0"]
    assert validate(composed([*line, "data.validation_path=text/SST-2/heldout.tsv"])) == []


def test_tokens_of_another_model_are_refused_however_few(tmp_path):
    """A vocabulary that is larger than the model's is seen by the model; a smaller one would find rows in it."""
    tokens = {"own": {"good": 0, "bad": 1, "film": 2}, "other": {"bad": 0, "good": 1}}
    for name, vocabulary in {**tokens, "copy": tokens["own"]}.items():
        (tmp_path / name).mkdir()
        made = {"added_tokens": [{"id": 3, "content": "[PAD]"}], "model": {"vocab": vocabulary}}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(made, indent=len(name)), encoding="utf-8")
    (tmp_path / "none").mkdir()
    line = ["data=text_classification", "data.path=it.tsv", "method=erm", "scenario=none", "model=huggingface"]
    line += [f"model.name={tmp_path / 'own'}"]
    assert [explain([*line, f"data.tokenizer.name={tmp_path / name}"]) for name in ("own", "copy", "none")] == [
        [],
        [],
        [],
    ]
    (problem,) = explain([*line, f"data.tokenizer.name={tmp_path / 'other'}"])
    assert problem.reason.startswith("its tokens are others than those that model.name=")
    assert problem.nearest == f"data.tokenizer.name={tmp_path / 'own'}"
    assert explain([*line[:-1], f"model.name={tmp_path / 'none'}", f"data.tokenizer.name={tmp_path / 'other'}"]) == []
