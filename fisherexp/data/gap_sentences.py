"""Gap sentences: the sentences that say most of the impression are taken out of the findings, to be written again.

Zhang et al., ICML 2020, arXiv 1912.08777 (PEGASUS), as used for reports in arXiv 2503.05750: a sentence's score is the
harmonic mean of its ROUGE-1 and BLEU against the impression; of n sentences the min(3, n - 2) best go, at least one.
How many orders its BLEU has is not said; here it is two, smoothed, since sentences are short.
"""

from collections.abc import Sequence

from fisherexp.data.reports import BLANK, FILL, STOP, Sentence, TensorSet, read_back, row, together
from fisherexp.metrics.overlap import bleu, rouge


def score(sentence: Sentence, summary: Sequence[int]) -> float:
    """Harmonic mean of ROUGE-1 and BLEU, in [0, 1]; full stops say nothing."""
    said, wanted = ([token for token in text if token != STOP] for text in (sentence, summary))
    recalled, precise = rouge(said, wanted, 1), bleu([said], [wanted], 2, smooth=True)
    return 2 * recalled * precise / (recalled + precise) if recalled * precise else 0.0


def gaps(findings: Sequence[Sentence], impression: Sequence[Sentence]) -> list[int]:
    """Which sentences go, in their order; of equals the first."""
    summary = [token for sentence in impression for token in sentence]
    best = sorted(range(len(findings)), key=lambda place: -score(findings[place], summary))
    return sorted(best[: max(1, min(3, len(findings) - 2))])


def gap_sentences(reports: TensorSet) -> TensorSet:
    """Of rows that ask for the impression, rows that ask for the gap sentences of the same findings."""
    rows = []
    for tokens, labels in zip(reports.inputs, reports.targets, strict=True):
        findings, impression = read_back(tokens, labels)
        gone = gaps(findings, impression)
        left = [(BLANK,) if place in gone else sentence for place, sentence in enumerate(findings)]
        rows.append(row(left, FILL, [findings[place] for place in gone]))
    return together(rows)
