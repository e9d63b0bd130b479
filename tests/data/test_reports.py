"""Generated reports: the language, the rows that a decoder reads, and the gap sentences taken from them."""

import itertools

import pytest
import torch

from fisherexp.data.gap_sentences import gap_sentences, gaps, score
from fisherexp.data.report_language import CONDITIONS, LENGTHS, PRESENT, words
from fisherexp.data.reports import (
    BLANK,
    END,
    FILL,
    IGNORED,
    PAD,
    SOURCE,
    STOP,
    SUMMARIZE,
    TARGET,
    Reports,
    read_back,
    row,
    sentences,
)


@pytest.fixture(scope="module")
def reports() -> Reports:
    return Reports(reports=200, test_reports=50).load()


def spelt(reports: Reports, given) -> list[str]:
    return [" ".join(reports.class_names[token] for token in sentence[:-1]) for sentence in given]


def test_they_are_the_same_every_time_and_none_is_in_both_parts(reports):
    again = Reports(reports=200, test_reports=50, seed=5).load()
    assert torch.equal(again.train.inputs, reports.train.inputs)
    assert torch.equal(again.test.targets, reports.test.targets)
    longer = Reports(reports=300, test_reports=50).load()
    assert torch.equal(longer.train.inputs[:200], reports.train.inputs)
    rows = {part: {tuple(one.tolist()) for one in getattr(reports, part).inputs} for part in ("train", "test")}
    assert not rows["train"] & rows["test"]


def test_the_impression_names_every_condition_that_is_present_in_the_fixed_order(reports):
    """Read back through the forms of the language: a finding is there for each sentence of the impression, no other."""
    order = [condition.impression.split()[1] for condition in CONDITIONS]
    for tokens, labels in zip(reports.train.inputs, reports.train.targets, strict=True):
        findings, impression = (spelt(reports, part) for part in read_back(tokens, labels))
        assert LENGTHS[0] <= len(findings) <= LENGTHS[1]
        assert PRESENT[0] <= len(impression) <= PRESENT[1]
        named = [order.index(sentence.split()[1]) for sentence in impression]
        assert named == sorted(set(named))
        for number, condition in enumerate(CONDITIONS):
            said = impression[named.index(number)] if number in named else None
            attribute = said.split()[0] if said else ""
            for forms in (condition.findings, condition.signs):
                there = {form.format(side=attribute, degree=attribute) for form in forms} & set(findings)
                assert len(there) == (said is not None)
            assert len(set(condition.normal) & set(findings)) == 0 or said is None


def test_the_longest_possible_report_fits():
    def longest(forms):
        return max(len(form.split()) for form in forms) + 1

    abnormal = sorted(longest(c.findings) + longest(c.signs) for c in CONDITIONS)[-PRESENT[1] :]
    normal = max(longest(c.normal) for c in CONDITIONS)
    assert sum(abnormal) + (LENGTHS[1] - 2 * PRESENT[1]) * normal <= SOURCE
    assert 3 * max(longest((*c.findings, *c.signs, *c.normal)) for c in CONDITIONS) < TARGET


def test_a_row_predicts_its_target_and_nothing_else():
    tokens, labels = row([(9, 8, STOP)], SUMMARIZE, [(7, STOP)])
    assert tokens == [9, 8, STOP, *[PAD] * (SOURCE - 3), SUMMARIZE, 7, STOP, *[PAD] * (TARGET - 3)]
    assert labels == [*[IGNORED] * SOURCE, 7, STOP, END, *[IGNORED] * (TARGET - 3)]
    assert read_back(torch.tensor(tokens), torch.tensor(labels)) == ([(9, 8, STOP)], [(7, STOP)])
    with pytest.raises(ValueError, match=f"{TARGET} to write: at most {SOURCE} and {TARGET - 1}"):
        row([], SUMMARIZE, [(7,) * TARGET])


def test_labels_are_one_ahead_and_the_vocabulary_is_all_that_occurs(reports):
    tokens, labels = reports.train.inputs, reports.train.targets
    asked = labels[:, :-1] != IGNORED
    ahead = torch.where(labels[:, :-1] == END, PAD, labels[:, :-1])
    assert torch.equal(tokens[:, 1:][asked], ahead[asked])
    assert len(reports.class_names) == reports.num_classes == 6 + len(words())
    assert tokens.max() < reports.num_classes
    assert sentences([5, STOP, 6]) == [(5, STOP)]


@pytest.mark.parametrize(("length", "gone"), [(2, 1), (3, 1), (4, 2), (5, 3), (9, 3)])
def test_as_many_gaps_as_published(length, gone):
    assert len(gaps([(9, STOP)] * length, [(9, STOP)])) == gone


def test_the_sentences_most_like_the_impression_go_in_their_order():
    impression = [(10, 11, STOP), (12, 13, STOP)]
    findings = [(20, STOP), (12, 13, 14, STOP), (10, 20, STOP), (10, 11, STOP), (21, 22, STOP)]
    assert gaps(findings, impression) == [1, 2, 3]
    # ROUGE-1 2·2/(2 + 4), BLEU of two orders √(1 · 1) times exp(1 - 4/2)
    recalled, precise = 2 / 3, 2.718281828459045**-1
    assert score(findings[3], [*impression[0], *impression[1]]) == pytest.approx(
        2 * recalled * precise / (recalled + precise)
    )
    assert score((20, STOP), impression[0]) == 0


def test_gap_sentences_and_what_is_left_make_the_findings(reports):
    made = gap_sentences(reports.test)
    for (tokens, labels), (other, asked) in zip(
        zip(reports.test.inputs, reports.test.targets, strict=True),
        zip(made.inputs, made.targets, strict=True),
        strict=True,
    ):
        findings, _ = read_back(tokens, labels)
        assert other[SOURCE] == FILL
        gone = iter(sentences(asked[SOURCE:].tolist()))
        whole, rest = [], [token for token in other[:SOURCE].tolist() if token != PAD]
        for blank, group in itertools.groupby(rest, BLANK.__eq__):
            stretch = list(group)
            whole += [next(gone) for _ in stretch] if blank else sentences(stretch)
        assert whole == findings
        assert next(gone, None) is None
