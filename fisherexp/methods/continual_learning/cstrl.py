"""CSTRL: learn to restore key sentences of reports, then to summarize them, held by a Fisher penalty that lets go.

Paper: arXiv 2503.05750, Findings of ACL 2025. Stage 1 writes gap sentences of the findings (data/gap_sentences.py) and
leaves θ* and its Fisher F. Stage 2 writes the impression, with

    L(θ) = cross-entropy + λ_e Σ_j F_j (θ_j - θ*_j)²,     λ_e = max(λ_min, λ_0 (1 - e / E)) in epoch e of E

F is the mean over batches of 32 of the squared gradient of the batch's mean loss, with the true labels; so λ belongs to
that batch size. There is no factor ½.

- The authors' code computes λ_e and prints it; what it multiplies the penalty by is λ_0 throughout. That is
  schedule=constant; the default is what the paper says.
- Their Fisher counts padding as something to predict, which is most of it; here padding has no label.
- A batch's mean loss is the mean over sequences of each one's mean over its tokens; theirs is the mean over all tokens.
- They fine-tune T5-small in half precision and distil the result. Here it is any model, F is float32, tied weights
  count once, and nothing is distilled.

The stages are the tasks of a sequence: scenario.tasks=[gap_sentences,summary]. Any other sequence, of images too, is
learned in the same way, with a penalty for every former task.
"""

from fisherexp.methods.continual_learning.ewc import EWC


class CSTRL(EWC):
    """lambda_: λ_0. schedule: 'linear_floor' or 'constant'. floor: λ_min. importance: F."""

    name = "cstrl"
    paper = "arXiv 2503.05750, Findings of ACL 2025"
    search = {"lambda_": "tag(log, interval(0.1, 1e6))"}
    factor = 1.0
