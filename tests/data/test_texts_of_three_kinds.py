"""Reviews, questions and generated reports as one set: classes in their order, every split with texts of its own."""

import pytest
from word_tokenizer import Words

from fisherexp.data.errors import DataError
from fisherexp.data.texts_of_three_kinds import TextsOfThreeKinds, reports

KINDS = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


@pytest.fixture
def files(tmp_path):
    rows = {"train": ("a bb", "0"), "train2": ("ccc", "1"), "test": ("dd", "1")}
    for split, names in (("train", ("train", "train2")), ("test", ("test",))):
        text = "sentence\tlabel\n" + "".join("\t".join(rows[name]) + "\n" for name in names)
        (tmp_path / f"{split}.tsv").write_text(text, encoding="utf-8")
        (tmp_path / f"{split}.txt").write_text("".join(f"{kind}:fine a dd\n" for kind in KINDS), encoding="utf-8")
    named = {"path": "train.tsv", "test_path": "test.tsv", "trec_path": "train.txt", "trec_test_path": "test.txt"}
    return {option: str(tmp_path / name) for option, name in named.items()}


def of(files, **options):
    return TextsOfThreeKinds(tokenizer=Words(), text="sentence", reports=20, test_reports=6, **files | options)


def test_classes_stand_kind_by_kind(files):
    data = of(files).load()
    assert data.class_names == TextsOfThreeKinds.class_names
    assert data.train.targets.tolist()[:8] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert set(data.train.targets.tolist()[8:]) == {0, 1}
    assert [len(data.train), len(data.test)] == [2 + 6 + 20, 1 + 6 + 6]
    assert data.train.inputs["input_ids"][0].tolist()[:2] == [1, 2]


def test_reports_are_others_in_each_split_and_labelled_by_how_much_they_find():
    train, again, test = (list(reports(split, 200)) for split in ("train", "train", "test"))
    assert train == again
    assert not {text for text, _ in train} & {text for text, _ in test}
    assert {label for _, label in train} == {"report: one condition", "report: several"}


def test_what_is_missing_is_one_line(files, tmp_path):
    (tmp_path / "train.txt").write_text("ABBR:exp what\n", encoding="utf-8")
    with pytest.raises(DataError, match="lack or add the class trec: DESC"):
        of(files, trec_test_path=files["trec_path"]).load()
    with pytest.raises(DataError, match=r"scenario\.validation puts some aside"):
        of(files, validation_path=files["path"])
