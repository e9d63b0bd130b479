"""Shares of refused and answered requests, of models whose answers are known beforehand."""

import pytest
import torch
from torch import nn

from fisherexp.data.desk_rules import desk_requests
from fisherexp.data.library_desk import LibraryDesk
from fisherexp.metrics.refusals import first_word
from fisherexp.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def data():
    return LibraryDesk(Tokenizer(None), requests=4, test_requests=8).load()


class Says(nn.Module):
    """Begins what it writes with `words`, one for each request of a batch; the rest is the end."""

    backbone = None

    def __init__(self, data: LibraryDesk, words: list[str]):
        super().__init__()
        self.data, self.words = data, words

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, self.data.num_classes)
        logits[..., self.data.end] = 1
        breaks = torch.tensor([self.data.encode("\n")[0]])
        for row, word in enumerate(self.words):
            logits[row, tokens[row] == breaks, self.data.encode(word)[0]] = 2
        return logits


def shares(data, words):
    metrics = data.objective.metrics(("test",))
    model = Says(data, words)
    for start in (0, 3):  # in two batches
        rows = slice(start, 3 if start == 0 else None)
        model.words = words[rows]
        inputs, targets = data.test.inputs[rows], data.test.targets[rows]
        metrics.update(0, model(inputs), targets)
        metrics.ask(0, model, type("Batch", (), {"inputs": inputs, "targets": targets}))
    assert set(metrics.headings) == set(metrics.better) == set(metrics.compute())
    return metrics.compute()["test_refused"], metrics.compute()["test_answered"]


def test_shares_of_models_that_refuse_answer_or_know(data):
    right = [first_word(answer) for _, answer in desk_requests(12, 0)[4:]]
    assert right == 4 * ["Yes", "Sorry"]
    assert shares(data, right) == (100, 100)
    assert shares(data, 8 * ["Sorry"]) == (100, 0)
    assert shares(data, 8 * ["Yes"]) == (0, 100)
    assert shares(data, 8 * [" the"]) == (0, 0)  # neither
    assert shares(data, [*right[:6], "Sorry", "Yes"]) == (75, 75)


@pytest.mark.parametrize("unit", ["words", "characters"])
def test_the_right_answers_count_whatever_a_token_is(unit, monkeypatch):
    data = LibraryDesk(Tokenizer(None), unit=unit, requests=4, test_requests=8).load()

    def right(model, inputs, labels, end, most):
        return [[token for token in row if token >= 0 and token != end][:most] for row in labels.tolist()]

    monkeypatch.setattr("fisherexp.metrics.refusals.greedy_answers", right)
    metrics = data.objective.metrics(("test",))
    metrics.ask(0, nn.Identity(), data.test.batch)
    assert (100 * metrics.right / metrics.asked).tolist() == [[100, 100]]


@pytest.mark.parametrize(("text", "word"), [("Sorry, the rules", "Sorry"), (" Yes", "Yes"), ("", ""), (" ,", "")])
def test_first_word(text, word):
    assert first_word(text) == word
