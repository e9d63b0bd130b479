"""What is known by heart: against hand-made logits whose answers can be counted on the fingers."""

import math

import pytest
import torch

from fisherexp.metrics.memorization import (
    exact_memorization,
    extraction_strength,
    mean_losses,
    min_k,
    without_last,
)

NONE = -100


def logits_of(probabilities, labels, vocabulary=4):
    """Logits (1, T, V) in which the label at each place has the given probability and the others share the rest."""
    rows = []
    for p, label in zip(probabilities, labels, strict=True):
        row = torch.full((vocabulary,), (1 - p) / (vocabulary - 1))
        row[max(label, 0)] = p
        rows.append(row.log())
    return torch.stack(rows)[None]


LABELS = [NONE, 1, 2, 3, 1, 2, NONE]
P = [0.01, 0.9, 0.1, 0.8, 0.5, 0.7, 0.01]  # the second answer token is the only wrong one
LOGITS, ROW = logits_of(P, LABELS), torch.tensor([LABELS])
COUNTED = [0.9, 0.1, 0.8, 0.5, 0.7]


def test_probability_is_the_geometric_mean_over_the_tokens_that_count():
    expected = math.prod(COUNTED) ** (1 / 5)
    assert torch.exp(-mean_losses(LOGITS, ROW)).item() == pytest.approx(expected, rel=1e-5)


def test_the_last_token_that_counts_is_left_out_in_every_row():
    rows = torch.tensor([[NONE, 1, 2, NONE], [3, NONE, NONE, NONE], [NONE] * 4])
    assert without_last(rows).tolist() == [[NONE, 1, NONE, NONE], [NONE] * 4, [NONE] * 4]


@pytest.mark.parametrize(
    ("probabilities", "strength", "exact"),
    [
        (COUNTED, 3 / 5, 4 / 5),  # two of five have to be given
        ([0.9] * 5, 1.0, 1.0),
        ([0.9, 0.9, 0.9, 0.9, 0.1], 0.0, 4 / 5),  # open-unlearning's code says 1/5
        ([0.1] * 5, 0.0, 0.0),
        ([0.1, 0.1, 0.1, 0.1, 0.9], 1 / 5, 1 / 5),
    ],
)
def test_extraction_is_the_tail_that_comes_by_itself_and_memorization_all_hits(probabilities, strength, exact):
    logits = logits_of([0.01, *probabilities, 0.01], LABELS)
    assert extraction_strength(logits, ROW).item() == pytest.approx(strength)
    assert exact_memorization(logits, ROW).item() == pytest.approx(exact)


@pytest.mark.parametrize(("share", "lowest"), [(0.4, [0.1, 0.5]), (0.2, [0.1]), (0.01, [0.1]), (1.0, COUNTED)])
def test_min_k_is_the_mean_over_the_least_likely_tokens(share, lowest):
    expected = -sum(map(math.log, lowest)) / len(lowest)
    assert min_k(LOGITS, ROW, share).item() == pytest.approx(expected, rel=1e-5)


def test_rows_without_tokens():
    empty = torch.full((1, 7), NONE)
    assert mean_losses(LOGITS, empty).item() == min_k(LOGITS, empty).item() == 0
    assert extraction_strength(LOGITS, empty).item() == 0
    assert exact_memorization(LOGITS, empty).isnan().all()


def test_a_row_does_not_depend_on_its_neighbours():
    other = logits_of([0.2] * 7, LABELS)
    together, rows = torch.cat([LOGITS, other]), torch.cat([ROW, ROW])
    for measure in (mean_losses, min_k, extraction_strength, exact_memorization):
        torch.testing.assert_close(measure(together, rows), torch.cat([measure(LOGITS, ROW), measure(other, ROW)]))
