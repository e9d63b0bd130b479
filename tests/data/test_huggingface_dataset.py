"""Data sets of the library `datasets` as texts with a class each, from folders."""

from contextlib import nullcontext

import pytest
from word_tokenizer import Words

from fisherexp.config.explain import composed
from fisherexp.content import look_again
from fisherexp.data.errors import DataError
from fisherexp.data.huggingface_dataset import HuggingFaceDataset
from fisherexp.runs.identity import name_of
from fisherexp.runs.store import ArtefactStore

datasets = pytest.importorskip("datasets", reason="pip install 'fisherexp[text]' (make text)")
TRAIN = [("a bb", 1), ("ccc", 0), ("dd dd dd", 1)]
TEST = [("bb", 0)]


def dataset(rows, names=("bad", "good")):
    label = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    texts, labels = zip(*rows, strict=True)
    return datasets.Dataset.from_dict({"text": list(texts), "label": list(labels)}, features=features)


@pytest.fixture
def folder(tmp_path):
    def save(train=TRAIN, test=TEST, **options):
        datasets.DatasetDict(train=dataset(train, **options), test=dataset(test, **options)).save_to_disk(
            tmp_path / "d"
        )
        return str(tmp_path / "d")

    return save


def read(path, **options):
    return HuggingFaceDataset(path=path, tokenizer=Words(), **options).load()


def test_rows_and_names_of_classes(folder):
    data = read(folder())
    assert data.class_names == ["bad", "good"]
    assert data.train.targets.tolist() == [1, 0, 1]
    assert data.train.inputs["input_ids"][:, :3].tolist() == [[1, 2, 0], [3, 0, 0], [2, 2, 2]]
    assert data.test.targets.tolist() == [0]


def test_numbers_are_names_where_there_are_none(folder):
    assert read(folder(names=None)).class_names == ["0", "1"]


def test_files_that_the_library_reads(tmp_path):
    for split, rows in {"train": TRAIN, "test": TEST}.items():
        lines = "".join(f"{text},{label}\n" for text, label in rows)
        (tmp_path / f"{split}.csv").write_text("text,label\n" + lines)
    assert read(str(tmp_path)).train.targets.tolist() == [1, 0, 1]


def test_a_single_table_is_the_training_texts(tmp_path):
    dataset(TRAIN * 4).save_to_disk(tmp_path / "d")
    data = read(str(tmp_path / "d"), test_split=None, test_share=0.25)
    assert (len(data.train), len(data.test)) == (9, 3)


def test_tokens_are_kept_by_content(folder, tmp_path):
    """Another text in the same folder is tokenized anew, the same ones are not."""
    store, words = ArtefactStore(tmp_path / "store"), Words()

    def first():
        look_again()  # as a run does when it begins
        data = HuggingFaceDataset(path=folder(train=rows), tokenizer=words)
        data.store = store
        return data.load().train.inputs["input_ids"][0, :3].tolist()

    rows = TRAIN
    assert first() == first() == [1, 2, 0]
    asked = words.asked
    rows = [("ccc ccc", 1), *TRAIN[1:]]
    assert first() == [3, 3, 0]
    assert words.asked > asked


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (TRAIN, {"train_split": "trian"}, "no split 'trian' among train, test; nearest: train"),
        (TRAIN, {"text": "texts"}, "no column 'texts' among text, label; nearest: text"),
        ([("a", -1), *TRAIN], {}, r"\(train\): row 0 has no class \(label=-1\)"),
        ([*TRAIN, (" ", 1)], {}, "row 3 has no 'text'"),
    ],
)
def test_one_line_for_what_is_not_there(folder, rows, options, message):
    with pytest.raises(DataError, match=message):
        read(folder(train=rows), **options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["no", "yes", ""], r"\(train\): row 2 has no class \(label=\)"),
        (["no", "yes", "  "], r"row 2 has no class"),
        (["no", "yes", None], r"row 2 has no class \(label=None\)"),
        ([0.0, 1.0, float("nan")], r"row 2 has no class \(label=nan\)"),
        ([[0], [1], [0, 1]], "row 0: 'label' holds a list or an object, not a class"),
        (["no", "yes", "NA"], None),  # the control
    ],
)
def test_a_row_without_a_class_makes_none_of_its_own(tmp_path, labels, message):
    whole = datasets.Dataset.from_dict({"text": ["a", "bb", "a a"], "label": labels})
    datasets.DatasetDict(train=whole, test=whole).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=message) if message else nullcontext():
        read(str(tmp_path / "d"))


def test_columns_of_something_else(tmp_path):
    texts = datasets.Dataset.from_dict({"text": [["a", "bb"], ["a"]], "label": [0, 1]})
    parts = {"train": texts, "test": texts}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "lists")
    with pytest.raises(DataError, match="row 0: 'text' holds a list or an object"):
        read(str(tmp_path / "lists"))


def test_it_is_called_in_a_run_as_on_the_command_line():
    line = ["model=minilm", "data=huggingface_dataset", "data.path=d", "method=erm", "scenario=none"]
    assert name_of(composed(line), "data") == "huggingface_dataset"


def test_a_name_of_the_hub_needs_a_version():
    with pytest.raises(DataError, match=r"data\.revision=<commit>"):
        read("stanfordnlp/no_such_data_set")
