"""The head alone: a linear classifier on the source's features, which stay as they are.

    φ = the head's weight and bias

The lower baseline of every adapter.
"""

from fisherexp.methods.finetuning.finetuning import HEAD, FineTuning


class HeadOnly(FineTuning):
    """Options as for FineTuning."""

    name = "head_only"
    paper = "baseline of Hu et al., ICLR 2022, arXiv 2106.09685"
    requires = ("features",)
    search = {"finetune.lr": "tag(log, interval(1e-3, 1))"}

    def freeze(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(HEAD))
