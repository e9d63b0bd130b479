"""Text files as data of a language model: blocks, documents, what is held out and what is refused."""

import dataclasses

import pytest
import torch

from fisherexp.data.documents import documents, pieces
from fisherexp.data.errors import DataError
from fisherexp.data.text_files import TextFiles
from fisherexp.runs.store import ArtefactStore

BEGIN, END = 98, 99


class Letters:
    """Every letter is a token; counts how often it is asked."""

    context, vocabulary, padding, checksum, begin, end, asked = 8, 100, 0, "letters", [BEGIN], END, 0

    def unmarked(self, texts):
        self.asked += 1
        return [[ord(letter) - ord("a") + 1 for letter in text if letter.isalpha()] for text in texts]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "texts" / "more").mkdir(parents=True)
    for name, text in {"b.txt": "efg", "a.txt": "abcd", "more/c.txt": "h", "blank.txt": "\n", "no.md": "x"}.items():
        (tmp_path / "texts" / name).write_text(text, encoding="utf-8")
    return str(tmp_path / "texts")


STREAM = [BEGIN, 1, 2, 3, 4, END, BEGIN, 5, 6, 7, END, BEGIN, 8, END]


def load(folder, **options):
    return TextFiles(folder, Letters(), **{"test_path": folder, "block_size": 8} | options).load()


def test_documents_are_packed_one_behind_the_other(folder):
    data = load(folder, block_size=4)
    assert data.train.inputs["input_ids"].flatten()[:4].tolist() == STREAM[:4]
    rows = data.train.padded(torch.arange(3))
    assert rows["input_ids"][:, :4].flatten().tolist() == STREAM[:12]
    assert data.train.targets[:, :4].flatten().tolist() == STREAM[1:13]
    assert data.train.tokens.data_ptr() == data.train.labels.data_ptr() - 4  # one array, not two
    assert data.architecture_options == {"input_shape": (4,), "vocabulary": 100}
    assert data.blank(2)["attention_mask"].shape == (2, 4)


def test_a_text_is_encoded_without_marks(folder):
    assert load(folder).encode("cab") == [3, 1, 2]


def test_or_a_document_is_a_row(folder, capsys):
    data = load(folder, packed=False, block_size=4)
    batch = data.train.batch
    assert batch.inputs["attention_mask"].sum(1).tolist() == [4, 4, 2]
    assert batch.inputs["input_ids"][0].tolist() == [BEGIN, 1, 2, 3]
    assert batch.targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, END], [8, END, -100, -100]]
    blank = {"files without text": {"train": 1, "test": 1}}
    assert data.remarks == {"documents cut to 4 tokens": {"train": 1, "test": 1}} | blank
    assert "documents cut to 4 tokens: 1 test, 1 train" in capsys.readouterr().err
    assert load(folder, packed=False, block_size=5).remarks == blank  # the control


def test_the_end_or_some_documents_are_held_out(folder):
    end = load(folder, test_path=None, test_share=0.4, block_size=2)
    assert (end.train.tokens.tolist(), end.test.tokens.tolist()) == (STREAM[:7], STREAM[8:13])
    last = load(folder, test_path=None, test_share=0.34, packed=False)
    assert last.test.targets[0, :2].tolist() == [8, END]
    drawn = {"test_path": None, "test_share": 0.34, "held_out": "documents", "packed": False}
    seeds = [load(folder, **drawn, seed=seed) for seed in range(6)]
    assert {(len(one.train), len(one.test)) for one in seeds} == {(2, 1)}
    assert len({tuple(one.test.lengths.tolist()) for one in seeds}) > 1


def test_tokens_are_kept_by_content_whatever_the_rows(folder, tmp_path):
    def load(end=END, **options):
        tokenizer = Letters()
        tokenizer.end = end
        data = TextFiles(folder, tokenizer, test_path=folder, block_size=3, **options)
        data.store = ArtefactStore(tmp_path / "store")
        return data.load().checksum(), tokenizer.asked

    first, again, rows = load(), load(), load(packed=False)
    assert first[0] == again[0] != rows[0]
    assert (first[1], again[1], rows[1]) == (6, 0, 0)
    assert load(end=None)[1] == 6  # it is no part of the tokenizer's checksum


def test_rows_with_other_labels_have_another_checksum(folder):
    data = load(folder, packed=False)
    before = data.checksum()
    data.train, data._checksum = dataclasses.replace(data.train, labels=data.train.labels + 1), None
    assert data.checksum() != before


def test_a_long_document_is_read_in_pieces_that_end_with_lines():
    text = "ab\ncd\nefghij\nk"
    assert list(pieces(text, 6)) == ["ab\ncd\n", "efghij", "\nk"]
    assert list(pieces(text)) == [text]
    assert "".join(pieces(text, 1)) == text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"block_size": 9}, "data.block_size=9: the model takes 8 at most"),
        ({"test_path": "nowhere"}, "there is no 'nowhere'"),
        ({"test_path": None, "test_share": 0.1, "packed": False}, "of 3 documents leaves 0 for testing; data.packed"),
        ({"test_path": None, "test_share": 0.0}, "data.block_size=4: a part of .* has 0 tokens, too few for a row"),
        ({"validation": 0.5, "validation_path": "it"}, "set one"),
    ],
)
def test_options_that_do_not_fit(folder, options, said):
    with pytest.raises(DataError, match=said) as error:
        load(folder, **{"block_size": 4} | options)
    assert "\n" not in str(error.value)


def test_folders_and_files_that_hold_no_text(tmp_path):
    with pytest.raises(DataError, match=r"no \.txt file in this folder"):
        list(documents(tmp_path))
    (tmp_path / "it.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(DataError, match="is empty: it has no text"):
        load(str(tmp_path))
    (tmp_path / "it.txt").write_bytes(b"a\xff")
    with pytest.raises(DataError, match=r"is not UTF-8 text \(byte 1\)"):
        load(str(tmp_path / "it.txt"))
