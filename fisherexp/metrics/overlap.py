"""How much of a text is in another: ROUGE and BLEU on tokens of any kind.

ROUGE-N, ROUGE-L: Lin, ACL workshop 2004. BLEU: Papineni et al., ACL 2002, with one reference; smoothing: Lin, Och,
COLING 2004.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

Tokens = Sequence[Hashable]


def ngrams(tokens: Tokens, n: int) -> Counter:
    """How often each run of n tokens occurs."""
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


def rouge(candidate: Tokens, reference: Tokens, n: int) -> float:
    """F1 of the n-grams that both have, in [0, 1]; 0 where either has none."""
    found, wanted = ngrams(candidate, n), ngrams(reference, n)
    total = found.total() + wanted.total()
    return 2 * (found & wanted).total() / total if total else 0.0


def rouge_l_recall(candidate: str, reference: str) -> float:
    """Length of the longest common subsequence of words over that of the reference, in [0, 1]; 0 where either has none.

    Words are runs of the letters a to z and digits, in lower case, as rouge-score has them; they are not stemmed.
    """
    from torchmetrics.functional.text.rouge import rouge_score

    return rouge_score(candidate, reference, rouge_keys="rougeL")["rougeL_recall"].item()


def rouge_l(candidate: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, as for rouge_l_recall: the harmonic mean of that and of its length
    over that of the candidate."""
    from torchmetrics.functional.text.rouge import rouge_score

    return rouge_score(candidate, reference, rouge_keys="rougeL")["rougeL_fmeasure"].item()


def bleu(candidates: Sequence[Tokens], references: Sequence[Tokens], n: int, smooth: bool = False) -> float:
    """Geometric mean of the precisions of 1- to n-grams over a corpus, times the penalty for being short; in [0, 1].

    smooth: one is added to matches and counts of n-grams beyond single tokens, for short texts.
    """
    written, wanted = sum(map(len, candidates)), sum(map(len, references))
    logs = 0.0
    for order in range(1, n + 1):
        matches = count = int(smooth and order > 1)
        for candidate, reference in zip(candidates, references, strict=True):
            found = ngrams(candidate, order)
            matches += (found & ngrams(reference, order)).total()
            count += found.total()
        if not matches:
            return 0.0
        logs += math.log(matches / count)
    return math.exp(logs / n + min(0.0, 1 - wanted / written))
