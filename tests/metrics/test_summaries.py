"""What is said of written summaries, on texts whose overlap is known."""

import pytest
import torch

from fisherexp.data.batch import Batch
from fisherexp.metrics.language import LanguageMetrics
from fisherexp.metrics.summaries import SummaryMetrics
from fisherexp.metrics.tasks import SequenceMetrics

END, STOP = 1, 2


def test_written_summaries_count_up_to_their_end_without_full_stops():
    metric = SummaryMetrics(("gap_sentences", "summary"), end=END, silent=STOP)
    labels = torch.tensor([[-100, 5, 6, STOP, END, -100], [-100, 7, 8, 9, STOP, END]])
    tokens = torch.tensor([[END, 5, 6, END, 7, 7], [END, 7, 8, STOP, 9, 9]])
    for part in range(4):
        metric.update(part, torch.zeros(2, 6, 10), labels)
    metric.update_decoded(tokens[:1], labels[:1])
    metric.update_decoded(tokens[1:], labels[1:])
    found = metric.compute()
    # The second has 7 8 9 9 for 7 8 9: precision 3/4 and recall 1; of pairs 2/3 and 1.
    assert found["exact"] == 50
    assert found["rouge_1"] == pytest.approx(100 * (1 + 6 / 7) / 2)
    assert found["rouge_2"] == pytest.approx(100 * (1 + 4 / 5) / 2)
    assert found["bleu_1"] == pytest.approx(100 * 5 / 6)
    assert found["bleu_2"] == pytest.approx(100 * (5 / 6 * 3 / 4) ** 0.5)
    assert set(metric.headings) <= set(metric.better)
    assert set(metric.better) <= set(found) | {"forgetting", "loss_rise"}


def test_the_model_writes_texts_of_the_last_task_only():
    class Counts(torch.nn.Module):
        """The next token is the last one plus one."""

        def forward(self, tokens):
            return torch.nn.functional.one_hot(tokens + 1, 10).float()

    metric = SummaryMetrics(("gap_sentences", "summary"), end=END, silent=STOP)
    tokens, labels = torch.tensor([[4, 5, 0, 0]]), torch.tensor([[-100, 6, 7, 8]])
    for part in range(4):
        metric.update(part, torch.zeros(1, 4, 10), labels)
        metric.ask(part, Counts(), Batch(tokens, labels))
    assert len(metric.decoded) == 1
    assert metric.compute()["exact"] == 100


@pytest.mark.parametrize("make", [LanguageMetrics, SequenceMetrics])
def test_tokens_without_a_label_do_not_count(make):
    logits, labels = torch.randn(3, 4, 5), torch.randint(0, 5, (3, 4))
    part, rest = make(("a",)), make(("a",))
    part.update(0, logits[:, :2], labels[:, :2])
    masked = labels.clone()
    masked[:, 2:] = -100
    rest.update(0, logits, masked)
    if make is SequenceMetrics:
        for metric in (part, rest):
            metric.update(1, logits, labels)
    assert rest.compute() == pytest.approx(part.compute())


def test_loss_rise_is_from_the_lowest_loss_of_each_former_task():
    metric = SequenceMetrics(("a", "b"))
    for part in range(4):
        metric.update(part, torch.zeros(2, 4), torch.tensor([0, 1]))
    metric.losses = [[0.5, 9.0]]
    assert metric.compute()["loss_rise"] == pytest.approx(torch.tensor(4.0).log().item() - 0.5)
