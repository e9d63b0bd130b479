"""Full fine-tuning: all weights of the source are trained on.

    φ = θ

The upper baseline of every adapter, and what their numbers are a share of.
"""

from fisherexp.methods.finetuning.finetuning import FineTuning


class Full(FineTuning):
    """Options as for FineTuning."""

    name = "full"
    paper = "baseline of Hu et al., ICLR 2022, arXiv 2106.09685"
    search = {"finetune.lr": "tag(log, interval(1e-4, 1e-1))"}
