"""Hashed n-grams against scikit-learn's counts, and texts that come back as they were."""

import hashlib
from collections import Counter

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer

from fisherexp.data.errors import DataError
from fisherexp.data.hashed_ngrams import bucket, chunks, counts, hashed, words
from fisherexp.data.text_selection import mixed_code, packed, read_texts, unpacked
from fisherexp.problems.text_selection import TextSelectionFiles, divergence

TEXT = "The cat, the CAT -- and l'été: x_1 += 2!"


def test_words_are_runs_of_word_characters_or_of_others():
    assert words(TEXT) == ["the", "cat", ",", "the", "cat", "--", "and", "l", "'", "été", ":", "x_1", "+=", "2", "!"]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ngrams_are_those_of_scikit_learn(n):
    vectorizer = CountVectorizer(analyzer="word", tokenizer=words, token_pattern=None, ngram_range=(1, n))
    expected = dict(zip(vectorizer.fit([TEXT]).get_feature_names_out(), vectorizer.transform([TEXT]).data, strict=True))
    buckets = Counter()
    for ngram, count in expected.items():
        buckets[bucket(ngram, 50)] += count
    found = counts(words(TEXT), n, 50)
    assert {at: int(count) for at, count in enumerate(found) if count} == buckets
    assert len(hashed(words(TEXT), n, 50)) == sum(expected.values())
    assert len(hashed([], n, 50)) == 0


def test_hashes_are_the_same_in_every_process():
    """Python's own `hash` of strings is not."""
    assert bucket("the cat", 10_000) == int(hashlib.sha256(b"the cat").hexdigest(), 16) % 10_000 == 143


def test_pieces_have_the_asked_number_of_words():
    assert [len(words(piece)) for piece in chunks(TEXT, 4)] == [4, 4, 4]
    assert " ".join(words(" ".join(chunks(TEXT, 5)))) == " ".join(words(TEXT))


def test_packed_texts_come_back():
    texts = ["", "été", "two\nlines", "last"]
    assert unpacked("raw", packed("raw", texts)) == texts


def test_own_files(tmp_path):
    (tmp_path / "pool.jsonl").write_text('{"text": "one two"}\n\n{"text": "three"}\n', encoding="utf-8")
    (tmp_path / "wanted.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    options = {"path": str(tmp_path / "pool.jsonl"), "target_path": str(tmp_path / "wanted.txt")}
    problem = TextSelectionFiles(**options).load(0)
    assert problem.texts("raw") == ["one two", "three"]
    assert sorted(problem.texts("target") + problem.texts("reference")) == ["a", "b", "c", "d", "e"]
    assert problem.about() == {"raw": 2, "target": 4, "reference": 1}
    found = problem.evaluate(torch.tensor([0]))
    assert set(found) == {"kl", "raw_kl", "words"}
    with pytest.raises(DataError, match=r"data\.held_out=0\.0 of 5"):
        TextSelectionFiles(**options, held_out=0.0).load(0)
    with pytest.raises(DataError, match=r"data\.chunk=9"):
        TextSelectionFiles(**options, chunk=9).load(0)
    with pytest.raises(DataError, match=r"data\.path: there is no 'lost\.jsonl'"):
        TextSelectionFiles("lost.jsonl", options["target_path"]).load(0)
    (tmp_path / "pool.jsonl").write_text('{"words": 1}\n')
    with pytest.raises(DataError, match=r'pool\.jsonl, line 1: a mapping with "text"'):
        list(read_texts(tmp_path / "pool.jsonl"))


def test_signs_that_end_lines_elsewhere_end_no_row(tmp_path):
    (tmp_path / "pool.jsonl").write_text('{"text": "a\u2028b\x85c"}\n', encoding="utf-8")
    assert list(read_texts(tmp_path / "pool.jsonl")) == ["a\u2028b\x85c"]


def test_the_pool_holds_the_share_it_says_and_nothing_twice():
    drawn = mixed_code("numbers", 40, 0.25, 5, 128, seed=0)
    assert drawn["raw.wanted"].sum() == 10
    texts = [text for part in ("raw", "target", "reference") for text in unpacked(part, drawn)]
    assert (len(texts), len(set(texts))) == (50, 50)
    assert divergence(texts, texts) == 0
    with pytest.raises(DataError, match=r"data\.pool=10000000 needs"):
        mixed_code("numbers", 10**7, 0.25, 5, 128, seed=0)
