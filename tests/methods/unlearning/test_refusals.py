"""Refusals in the place of answers: the rows by hand; IDK's and DPO's gradients against loops over single tokens."""

from types import SimpleNamespace

import pytest
import torch
from tiny_tokens import FORGET, LENGTH, TokenNet, gradients, mean_of_tokens, rows_of, taught, token_batch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.data.errors import DataError
from fisherexp.data.fictitious_people import FictitiousPeople
from fisherexp.data.reports import END, Reports
from fisherexp.methods.unlearning.dpo import DPO
from fisherexp.methods.unlearning.idk import Idk
from fisherexp.methods.unlearning.refusals import REFUSALS, answered, drawn_answers, encoded
from fisherexp.models.huggingface import HuggingFace
from fisherexp.models.tokenizer import Tokenizer

GIVEN = {"refusals": None, "forget_weight": 0.7, "retain_weight": 0.4, "epochs": 1, "lr": 1e-3, "weight_decay": 0.0}
ROWS = [[1, 2, 3, 4], [5, 6, 7, 0]]
TARGETS = [[-100, 3, 4, 9], [-100, -100, 9, -100]]
ANSWERS = [[21, 22, 9], [31, 9]]
ANSWERED = ([[1, 2, 21, 22, 0], [5, 6, 7, 31, 0]], [[-100, 21, 22, 9, -100], [-100, -100, 31, 9, -100]])


def test_a_row_keeps_its_prompt_and_gets_the_answer():
    targets = torch.tensor(TARGETS)
    found = answered(Batch(torch.tensor(ROWS), targets), ANSWERS, limit=8)
    assert found.inputs.tolist() == [row[:4] for row in ANSWERED[0]]
    assert found.targets.tolist() == [row[:4] for row in ANSWERED[1]]
    longer = [[21, 22, 23, 9], [31, 9]]
    named = {"input_ids": torch.tensor(ROWS), "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]])}
    found = answered(Batch(named, targets), longer, limit=8)
    assert found.inputs["input_ids"].tolist() == [[1, 2, 21, 22, 23], [5, 6, 7, 31, 0]]
    assert found.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert found.targets.tolist() == [[-100, 21, 22, 23, 9], [-100, -100, 31, 9, -100]]


def test_an_answer_is_cut_to_the_longest_row_and_a_text_without_prompt_keeps_its_first_token():
    found = answered(Batch(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]])), [[21, 22, 23, 24]], limit=3)
    assert found.inputs.tolist() == [[1, 21, 22]]
    assert found.targets.tolist() == [[21, 22, 23]]


def test_answers_are_drawn_evenly_from_all():
    torch.manual_seed(0)
    drawn = [answer[0] for answer in drawn_answers([[n] for n in range(4)], 400)]
    assert all(70 < drawn.count(n) < 130 for n in range(4))


def test_texts_become_tokens_of_the_data_with_their_end():
    data = Reports(reports=2, test_reports=2)
    found = encoded(data, data.refusals)
    assert [data.text(row) for row in found] == ["unremarkable . <end>", "normal . <end>", "clear . <end>"]
    assert all(row[-1] == END for row in found)
    with pytest.raises(DataError, match=r"have no word 'I', which is in \"I don't know\.\""):
        encoded(data, None)
    assert len(set(REFUSALS)) == len(REFUSALS)


# --- the objectives ------------------------------------------------------------------------------------------------

BATCH, REFUSED = token_batch(), [[5, 6, 1]]
# Of each forgotten row, where its answer begins: the refusal is cut to the row.
STARTS = [1, 3]


def method_of(cls, **options):
    method = taught(cls(TokenNet(), **GIVEN | options), 1)
    method.answers, method.limit = REFUSED, LENGTH
    return method


def refused_rows(model):
    """-log p of the refusal's tokens after each forgotten prompt."""
    found = []
    for tokens, start in zip(BATCH.inputs[FORGET].tolist(), STARTS, strict=True):
        written = tokens[: start + 1] + REFUSED[0][:-1]
        logits = model(torch.tensor([written]))[0, start:]
        found.append([z.logsumexp(0) - z[y] for z, y in zip(logits, REFUSED[0], strict=True)])
    return found


@pytest.mark.parametrize("options", [{}, {"forget_weight": 0.0}, {"retain_weight": 0.0}], ids=str)
def test_idk(options):
    given, method, plain = GIVEN | options, method_of(Idk, **options), TokenNet()
    refused = [row[: LENGTH - start] for row, start in zip(refused_rows(plain), STARTS, strict=True)]
    retained = mean_of_tokens(rows_of(plain, BATCH, ~FORGET))
    expected = given["forget_weight"] * mean_of_tokens(refused) + given["retain_weight"] * retained
    torch.testing.assert_close(gradients(method.loss(BATCH), method.model), gradients(expected, plain))


@pytest.mark.parametrize("options", [{"beta": 0.1}, {"beta": 2.0}, {"beta": 0.1, "retain_weight": 0.0}], ids=str)
def test_dpo(options):
    given, method, plain, source = GIVEN | options, method_of(DPO, **options), TokenNet(), TokenNet(1)
    (lost, lost_before), (won, won_before) = (
        [[sum(row) for row in rows(model)] for model in (plain, source)]
        for rows in (lambda model: rows_of(model, BATCH, FORGET), refused_rows)
    )
    each = []
    for i in range(2):
        margin = (lost[i] - lost_before[i].detach()) - (won[i] - won_before[i].detach())
        each.append((1 + (-given["beta"] * margin).exp()).log())
    preferred = 2 / given["beta"] * sum(each) / 2
    expected = 0.7 * preferred + given["retain_weight"] * mean_of_tokens(rows_of(plain, BATCH, ~FORGET))
    torch.testing.assert_close(gradients(method.loss(BATCH), method.model), gradients(expected, plain))


class Pretrained(HuggingFace):
    """Of one only how much it takes."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.context = 400


@pytest.mark.parametrize(
    ("data", "asked", "wanted"),
    [
        (Reports(reports=4, test_reports=2), ["clear ."], ["clear ."]),
        (Reports(reports=4, test_reports=2), None, Reports.refusals),
        (FictitiousPeople(Tokenizer(None), people=2, neighbours=1, held_out=1), None, ["What?"]),
    ],
)
def test_refusals_are_asked_for_before_the_fit_and_by_default_in_words_of_the_data(data, asked, wanted):
    data.load()
    samples = SimpleNamespace(tagged=lambda **tags: [0, 1])
    setting = SimpleNamespace(
        data=data, parts={"retain": samples, "forget": samples}, loader_of=lambda samples, **options: samples
    )
    method = Idk(TokenNet(), **GIVEN | {"refusals": asked})
    method.model.backbone = nn.Identity()
    method.batches(setting)
    assert method.answers == [[*data.encode(text), data.end] for text in wanted]
    assert method.limit == data.input_shape[0]
    # A pretrained model takes more than the longest row, and is taught whole refusals with their end.
    method.model.backbone = Pretrained()
    method.batches(setting)
    assert method.limit == 400
