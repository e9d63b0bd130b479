"""MUSE's files: read as they are in its repository and on the hub, and made rows of blocks, texts and prompts."""

import json

import pytest
import torch
from tiny_muse import FORGET, HELD_OUT, RETAIN1, RETAIN2, WHO, tiny_muse, told, write

from fisherexp.data import muse as module
from fisherexp.data import remarks
from fisherexp.data.errors import DataError
from fisherexp.data.muse import Muse
from fisherexp.data.muse_files import read_rows
from fisherexp.models.tokenizer import Tokenizer

BEGIN, END = 998, 999


class Letters:
    """In the place of a model's tokenizer: every sign is a token."""

    name, context, vocabulary, padding, begin, end = "letters", 64, 1000, 0, [BEGIN], END

    def unmarked(self, texts):
        return [[ord(sign) for sign in text] for text in texts]

    def text(self, tokens):
        return "".join(chr(token) for token in tokens if token < BEGIN)


@pytest.fixture
def folder(tmp_path):
    tiny_muse(tmp_path)
    return tmp_path


def load(folder, tokenizer=None, **options):
    texts = {"forget": ["raw/forget"], "retain": ["raw/retain1", "raw/retain2"]}
    options = {"unit": "characters", "block_size": 48, "shots": 0} | texts | options
    return Muse(str(folder), tokenizer or Tokenizer(None), **options).load()


def said(data, rows):
    """What rows of tokens of the data's own say, with all that is predicted."""
    return [data.text([row[0], *labels[labels >= 0]]) for row, labels in zip(rows.inputs, rows.targets, strict=True)]


def test_texts_are_rows_that_know_their_corpus(folder, capsys):
    remarks._say_once.cache_clear()  # in this process others may have had the same to say
    data = load(folder, packed=False)
    assert said(data, data.train) == [told(letter) for letter in RETAIN1 + RETAIN2 + FORGET]
    assert data.train.tags["corpus"].tolist() == [module.RETAIN] * 8 + [module.FORGET] * 4
    assert said(data, data.test) == [told(letter) for letter in HELD_OUT]
    assert said(data, data.beginnings("members")) == [told(letter) for letter in FORGET]
    assert data.remarks == {"blank texts": {"forget": 1}}
    assert "blank texts: 1 forget" in capsys.readouterr().err
    assert data.train.inputs.shape == (12, 48) == (12, *data.input_shape)
    ends = [int(labels[labels >= 0][-1]) == data.end for labels in data.train.targets]
    assert all(ends)
    assert not any(
        int(labels[labels >= 0][-1]) == data.end for labels in data.test.targets
    )  # MUSE attacks the text alone


def test_longer_texts_are_cut_and_counted(folder):
    data = load(folder, packed=False, block_size=20)
    assert said(data, data.train)[0] == told("E")[:21]
    assert data.remarks["texts cut to 20 tokens"] == {"retain": 8, "forget": 4}
    assert load(folder, packed=False, block_size=len(told("E"))).remarks == {
        "blank texts": {"forget": 1}
    }  # the control


def test_texts_are_packed_corpus_by_corpus_with_the_models_marks(folder):
    """Every token but the first of a corpus is predicted once."""
    data = load(folder, Letters(), block_size=10)
    for corpus, letters in ((module.RETAIN, RETAIN1 + RETAIN2), (module.FORGET, FORGET)):
        stream = [token for letter in letters for token in [BEGIN, *map(ord, told(letter)), END]]
        rows = data.train.subset((data.train.tags["corpus"] == corpus).nonzero().flatten())
        assert rows.lengths[:-1].eq(10).all()
        kept = rows.inputs["attention_mask"].bool()
        assert rows.inputs["input_ids"][kept].tolist() == stream[:-1]
        assert rows.targets[kept].tolist() == stream[1:]
    beginning = data.test.batch
    assert beginning.inputs["input_ids"][0, :10].tolist() == [BEGIN, *map(ord, told("M")[:9])]
    assert beginning.targets[0, :10].tolist() == [*map(ord, told("M")[:10])]


def test_prompts_keep_their_end_and_room_for_what_is_written(folder):
    data = load(folder, Letters(), block_size=30)
    rows, cut = data.asked([("abcdefgh", "uvwxyz"), ("ab", "u")], 4, cut=True)
    assert cut == 0
    assert rows.inputs["input_ids"][0, :12].tolist() == [BEGIN, *map(ord, "abcdefghuvw")]
    assert rows.targets[0, :12].tolist() == [-100] * 8 + [*map(ord, "uvwx")]
    rows, _ = data.asked([("abcdefgh", "uvwxyz")], 4, cut=False)
    assert rows.targets[0][rows.targets[0] >= 0].tolist() == [*map(ord, "uvwxyz")]
    rows, cut = data.asked([("a" * 30 + "bc", "u"), ("ab", "u")], 4, cut=True)  # 25 fit beside a mark and four to come
    assert cut == 1
    assert rows.inputs["input_ids"][0, :26].tolist() == [BEGIN, *map(ord, "a" * 23 + "bc")]
    with pytest.raises(DataError, match=r"data\.block_size=30 leaves no room for a prompt"):
        data.asked([("ab", "u")], 29, cut=True)


def test_solved_questions_stand_before_a_question(folder):
    (plain, answer), *_ = load(folder).questions["forget"]
    assert (plain, answer) == ("Question: who is A?\nAnswer:", "fig")
    solved = f"{told('I')}\n\n{told('J')}\n\n"
    assert [prompt for prompt, _ in load(folder, shots=2).questions["retain"]] == [
        f"{solved}Question: who is {letter}?\nAnswer:" for letter in RETAIN2
    ]
    with pytest.raises(DataError, match=r"data\.shots=3: knowmem/forget_qa_icl has only 2"):
        load(folder, shots=3)


def test_what_is_learned_can_be_named(folder):
    data = load(folder, packed=False, forget=["raw/retain2"], retain=["raw/retain1"])
    assert said(data, data.train) == [told(letter) for letter in RETAIN1 + RETAIN2]


def test_the_hubs_files_say_the_same(folder, tmp_path_factory):
    """Parquet, in parts, with a column for texts and retain_qa where the repository says retain2_qa."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    hub = tmp_path_factory.mktemp("hub")
    for file in folder.rglob("*.json"):
        rows = [row if isinstance(row, dict) else {"text": row} for row in json.loads(file.read_text())]
        place = hub / file.relative_to(folder).parent
        place.mkdir(exist_ok=True)
        name = file.stem.replace("retain2_qa", "retain_qa")
        for number, part in enumerate((rows[:1], rows[1:])):
            table = pyarrow.Table.from_pylist(part)
            parquet.write_table(table, place / f"{name}-0000{number}-of-00002.parquet")
    one, other = load(folder, shots=2), load(hub, shots=2)
    assert one.checksum() == other.checksum()
    assert (one.questions, one.passages) == (other.questions, other.passages)


def test_rows_may_stand_line_by_line(tmp_path):
    (tmp_path / "it.jsonl").write_text('{"text": "a"}\n\n{"more": 1, "text": "b"}\n')
    assert read_rows(tmp_path, ["none", "it"], ["text"]) == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("raw/forget", None, "there is no raw/forget with one of the endings .json, .jsonl, .parquet"),
        ("knowmem/retain2_qa", None, "there is no knowmem/retain_qa or knowmem/retain2_qa with"),
        ("raw/forget", [], r"raw/forget\.json is empty: it has no row"),
        ("raw/forget", ["", " "], "raw/forget: every text is blank"),
        ("raw/forget", ["a", 3], "row 2: 'text' holds something that is no text"),
        ("privleak/holdout", [{"txet": "a"}], "row 1 has no column 'text' among txet; nearest: txet"),
        ("verbmem/forget", [{"prompt": "a"}], "row 1 has no column 'gt' among prompt"),
        ("verbmem/forget", ["a"], "row 1 has no column 'prompt' among none"),
        (
            "knowmem/forget_qa",
            [{"question": "Who?", "answer": ""}],
            "'answer' holds something that is no text, or an e",
        ),
    ],
)
def test_files_that_do_not_fit_are_one_line(folder, name, rows, message):
    file = folder / f"{name}.json"
    if rows is None:
        file.unlink()
    else:
        write(file, rows)
    with pytest.raises(DataError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", [".json", ".parquet"])
@pytest.mark.parametrize("content", [b"[3", b'["a\xff"]', b"PAR1"])
def test_files_that_cannot_be_read_are_one_line(folder, ending, content):
    (folder / "raw" / "forget.json").unlink()
    (folder / "raw" / f"forget{ending}").write_bytes(content)
    with pytest.raises(DataError, match=rf"raw/forget\{ending} (cannot be read|is not UTF-8)") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_row_is_no_longer_than_the_model_takes(folder):
    with pytest.raises(DataError, match=r"data\.block_size=65: the model takes 64 at most"):
        load(folder, Letters(), block_size=65)


def test_all_that_is_asked_can_be_said(folder):
    """Words of the data's own are those of questions and passages, too."""
    data = load(folder, unit="words", shots=2)
    for pairs in (data.passages, *data.questions.values()):
        rows, _ = data.asked(pairs, 4, cut=False)
        wanted = [token for _, answer in pairs for token in data.encode(answer)]
        assert torch.equal(rows.targets[rows.targets >= 0], torch.tensor(wanted))
    assert {WHO[letter] for letter in FORGET} <= {answer for _, answer in data.questions["forget"]}
