"""ROUGE and BLEU against those of torchmetrics, on random texts."""

import random

import pytest
from torchmetrics.functional.text import bleu_score
from torchmetrics.functional.text.rouge import rouge_score

from fisherexp.metrics.overlap import bleu, rouge, rouge_l, rouge_l_recall

random.seed(0)
PAIRS = [[[random.choice("abcd") for _ in range(random.randint(3, 9))] for _ in range(2)] for _ in range(20)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_rouge_is_that_of_torchmetrics(n):
    for candidate, reference in PAIRS:
        expected = rouge_score(" ".join(candidate), " ".join(reference), rouge_keys=f"rouge{n}")
        assert rouge(candidate, reference, n) == pytest.approx(float(expected[f"rouge{n}_fmeasure"]), abs=1e-6)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_bleu_is_that_of_torchmetrics(n, smooth):
    candidates, references = zip(*PAIRS, strict=True)
    written, wanted = ([" ".join(text) for text in texts] for texts in (candidates, references))
    expected = bleu_score(written, [[text] for text in wanted], n_gram=n, smooth=smooth)
    assert bleu(candidates, references, n, smooth) == pytest.approx(float(expected), abs=1e-6)


def test_a_text_is_all_of_itself_and_nothing_of_another():
    text, other = list("abcab"), list("xyz")
    for n in (1, 2, 3):
        assert rouge(text, text, n) == bleu([text], [text], n) == pytest.approx(1)
        assert rouge(text, other, n) == rouge([], other, n) == bleu([text], [other], n) == bleu([[]], [other], n) == 0


@pytest.mark.parametrize(
    ("candidate", "reference", "recall"),
    [
        ("Ada was born, they say, in Torvik!", "ada was born in Torvik.", 1.0),
        ("In Torvik was Ada born.", "Ada was born in Torvik.", 2 / 5),  # was … born, Ada born, in Torvik
        ("nothing of it", "Ada was born in Torvik.", 0.0),
        ("", "Ada was born in Torvik.", 0.0),
    ],
)
def test_rouge_l_recall_is_the_longest_common_subsequence_of_words(candidate, reference, recall):
    assert rouge_l_recall(candidate, reference) == pytest.approx(recall)


@pytest.mark.parametrize(
    ("candidate", "reference", "f1"),
    [
        ("a b c d", "a c", 2 * 0.5 * 1 / 1.5),
        ("a c", "a b c d", 2 * 1 * 0.5 / 1.5),
        ("c a", "a b c", 2 * (1 / 2) * (1 / 3) / (5 / 6)),
        ("", "a", 0.0),
    ],
)
def test_rouge_l_is_the_harmonic_mean_of_precision_and_recall(candidate, reference, f1):
    assert rouge_l(candidate, reference) == pytest.approx(f1)
