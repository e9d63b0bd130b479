"""VerbMem, KnowMem and PrivLeak by hand, on a model that writes what it is told to."""

import math

import pytest
import torch

from fisherexp.data.batch import Batch
from fisherexp.metrics.muse import MuseMetrics, privacy_leakage, up_to_the_next_question

END = 0
NAMES = ["<end>", "a", "b", "c", "d", "\n\n", "Question:", "x"]
PARTS = ("verbmem", "forget_knowmem", "retain_knowmem", "members", "held_out")


class Writes(torch.nn.Module):
    """After `x`, the tokens it was given, whatever else it reads."""

    backbone = None

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def forward(self, tokens):
        after = (tokens.flip(1) == 7).int().argmax(1)  # how many tokens stand behind the last x
        following = torch.tensor([self.tokens[n] if n < len(self.tokens) else END for n in after.tolist()])
        return torch.nn.functional.one_hot(following, len(NAMES)).float()[:, None].expand(-1, tokens.shape[1], -1)


def say(tokens):
    return " ".join(NAMES[token] for token in tokens)


def metric(**most):
    return MuseMetrics(PARTS, say, END, {"verbmem": 4, "forget_knowmem": 4, "retain_knowmem": 4} | most)


def asked(found, part, written, wanted):
    rows = torch.tensor([[7, *wanted, *[END] * (8 - len(wanted))]])
    labels = torch.tensor([[*wanted, *[-100] * (9 - len(wanted))]])
    found.ask(PARTS.index(part), Writes(written), Batch(rows, labels))


def scored(found, part, losses):
    """Two tokens a text, of these losses: half of them count, rounded up to one, which is the less likely."""
    for loss in losses:
        p = math.exp(-loss)
        logits = torch.tensor([[[p, 1 - p], [1.0, 1e-9]]], dtype=torch.float64).log()
        found.update(PARTS.index(part), logits, torch.zeros(1, 2, dtype=torch.int64))


def complete(found):
    for part in ("verbmem", "forget_knowmem", "retain_knowmem"):
        if not getattr(found, part):
            asked(found, part, [1], [1])
    if not found.members:
        scored(found, "members", [1.0])
        scored(found, "held_out", [2.0])
    return found.compute()


def test_verbmem_is_the_f1_of_the_longest_common_subsequence():
    found = metric()
    asked(found, "verbmem", [1, 3, 4], [1, 2, 3])  # a c of three and three: 2/3
    asked(found, "verbmem", [1], [1, 2, 3])  # precision 1, recall 1/3: 1/2, where recall alone says 1/3
    asked(found, "verbmem", [], [1])
    assert complete(found)["verbmem"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)


def test_no_more_is_written_than_asked_for():
    found = metric(verbmem=2)
    asked(found, "verbmem", [1, 2, 3], [1, 2])
    assert complete(found)["verbmem"] == 100
    longer = metric(verbmem=3)  # the control
    asked(longer, "verbmem", [1, 2, 3], [1, 2])
    assert complete(longer)["verbmem"] == pytest.approx(100 * 4 / 5)


@pytest.mark.parametrize("part", ["forget_knowmem", "retain_knowmem"])
@pytest.mark.parametrize("mark", [5, 6])
def test_an_answer_ends_where_the_next_question_begins(part, mark):
    found = metric()
    asked(found, part, [1, mark, 2], [1])
    asked(found, part, [1, 2], [1])
    found = complete(found)
    assert found[part] == pytest.approx(100 * (1 + 2 / 3) / 2)
    other = ({"forget_knowmem", "retain_knowmem"} - {part}).pop()
    assert found[other] == 100  # of its own questions


def test_what_is_written_on_from_a_text_does_not_end_there():
    found = metric()
    asked(found, "verbmem", [1, 6, 2], [1])  # the mark is a word, too: a, question, b
    assert complete(found)["verbmem"] == pytest.approx(100 * 2 / 4)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("red\n\nblue", "red"), ("red\nQuestion x", "red"), ("red Question: x\n\n", "red "), ("red\nblue", "red\nblue")],
)
def test_the_first_mark_ends_an_answer(text, kept):
    assert up_to_the_next_question(text) == kept


def test_the_attack_compares_the_least_likely_tokens_of_texts():
    found = metric()
    scored(found, "members", [1.0, 3.0])
    scored(found, "held_out", [2.0, 4.0])
    assert complete(found)["min_k_auc"] == 75  # of four pairs, three have the member below


def test_privleak_is_relative_to_the_oracle_with_its_published_sign():
    """In MUSE's AUC, here 100 less it, a source that knows its texts by heart has none of the pairs."""
    assert privacy_leakage(50.0, 50.0) == 0
    assert privacy_leakage(100.0, 50.0) == -100  # too little forgotten
    assert privacy_leakage(0.0, 50.0) == 100  # too much
    assert privacy_leakage(40.0, 20.0) == pytest.approx(100 * (0.6 - 0.8) / 0.8)
    with pytest.raises(ZeroDivisionError):
        privacy_leakage(100.0, 100.0)


def test_a_model_that_is_not_finite_is_refused():
    found = metric()
    scored(found, "members", [float("nan")])
    scored(found, "held_out", [1.0])
    with pytest.raises(ValueError, match="losses on 'members' are not finite: it has diverged"):
        complete(found)
