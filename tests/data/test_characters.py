"""Text as sequences: every character is predicted once, from those before it."""

import pytest
import torch

from fisherexp.data.characters import CharacterText, sequences
from fisherexp.data.errors import DataError
from fisherexp.data.tiny_shakespeare import TinyShakespeare

TEXT = "to be, or not to be" * 20


@pytest.fixture
def text(tmp_path) -> CharacterText:
    (tmp_path / "text.txt").write_text(TEXT)
    return CharacterText("text.txt", context=7, root=str(tmp_path), batch_size=4).load()


def test_sequences_follow_each_other_and_labels_are_one_ahead():
    made = sequences(torch.arange(11), 3)
    assert made.inputs.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert made.targets.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_text_comes_back_from_its_tokens(text):
    assert "".join(text.class_names) == " ,benort"
    assert text.architecture_options == {"input_shape": (7,), "vocabulary": 8}
    spelt = "".join(text.class_names[token] for token in text.train.inputs.flatten())
    assert spelt == TEXT[: len(spelt)]
    assert len(text.train) == (342 - 1) // 7
    tested = "".join(text.class_names[token] for token in text.test.inputs.flatten())
    assert tested == TEXT[342 : 342 + len(tested)]


def test_a_text_becomes_tokens_and_comes_back(text):
    assert text.encode("to be") == [7, 5, 0, 2, 3]
    assert text.text(text.encode("not")) == "not"
    with pytest.raises(DataError, match="text has no character '!', which is in 'no!'"):
        text.encode("no!")


def test_batches_are_tokens_and_next_tokens(text):
    tokens, following, *_ = next(iter(text.loader(text.train, shuffle=True)))
    assert tokens.shape == following.shape == (4, 7)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens[:, 1:], following[:, :-1])


def test_validation_is_taken_from_training(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    data = CharacterText("text.txt", context=7, root=str(tmp_path), validation=0.25).load()
    assert (len(data.train), len(data.validation)) == (36, 12)


@pytest.mark.parametrize("content", ["short", b"\xff\xfe\x00"])
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "text.txt"
    file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content)
    with pytest.raises(DataError) as error:
        CharacterText(str(file)).load()
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_shakespeare_says_where_to_put_it(tmp_path):
    with pytest.raises(DataError, match=rf"put .*char-rnn at {tmp_path}/text/tinyshakespeare/input.txt, or set"):
        TinyShakespeare(root=str(tmp_path)).load()


def test_an_alphabet_that_two_texts_share(tmp_path):
    (tmp_path / "one.txt").write_text(TEXT)
    (tmp_path / "other.txt").write_text("if x:\n    y = 1\n" * 20)
    texts = [CharacterText(f"{n}.txt", 7, alphabet="ascii", root=str(tmp_path)).load() for n in ("one", "other")]
    assert texts[0].class_names == texts[1].class_names
    assert texts[0].num_classes == 96
    assert texts[1].text(texts[1].encode("y = 1\n")) == "y = 1\n"
    (tmp_path / "foreign.txt").write_text(TEXT + "é")
    with pytest.raises(DataError, match=r"has 'é', which is not one of data.alphabet=ascii"):
        CharacterText("foreign.txt", 7, alphabet="ascii", root=str(tmp_path)).load()
    assert "é" in CharacterText("foreign.txt", 7, root=str(tmp_path)).load().class_names
