"""Inter-domain mixup: train on convex combinations of images of two domains.

Paper: Zhang et al., ICLR 2018, arXiv 1710.09412, between domains as in DomainBed (arXiv 2007.01434, after Xu et al.
AAAI 2020, arXiv 1912.01805). The domains are put in a random ring; each is paired with the next, with one λ a pair:

    L = mean over pairs of  λ L(λ x_e + (1 - λ) x_f, y_e) + (1 - λ) L(…, y_f),      λ ~ Beta(α, α)

A pair is as long as its smaller domain. One domain alone is mixed with itself, that is, left as it is. With several
processes each mixes its own share of the batch.
"""

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.batches import by_domain
from fisherexp.methods.domain_generalization.domain import Domain, seen
from fisherexp.methods.domain_generalization.penalty import L2_ALONE, Penalty
from fisherexp.methods.recipe import Recipe


def mixed(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """share · first + (1 - share) · second of images (n, C, H, W) and (m, C, H, W), min(n, m) of them, floats."""
    n = min(len(first), len(second))
    return share * first[:n] + (1 - share) * second[:n]


class DomainMixup(DomainMethod):
    """alpha: of the Beta distribution. Of `penalty` only l2 has a say."""

    penalizes = False
    without_effect = L2_ALONE
    paper = "Zhang et al., ICLR 2018, arXiv 1710.09412; Xu et al., AAAI 2020, arXiv 1912.01805"

    def __init__(self, model: nn.Module, alpha: Positive, training: Recipe, penalty: Penalty) -> None:
        super().__init__(model, training, penalty)
        self.alpha = alpha

    def penalized_risk(self, batch: Batch) -> Tensor:
        images, domain = batch.inputs, batch.tags["domain"]
        if images.dtype == torch.uint8:
            images = images.to(self.model.mean.dtype) / 255  # as Classifier.normalize would
        inputs, targets = by_domain(images, domain), by_domain(batch.targets, domain)
        ring = torch.randperm(len(inputs)).tolist()
        pairs = list(zip(ring, ring[1:] + ring[:1], strict=True))
        shares = torch.distributions.Beta(self.alpha, self.alpha).sample((len(pairs),)).to(images)
        batches = [mixed(inputs[e], inputs[f], share) for (e, f), share in zip(pairs, shares, strict=True)]
        features, logits = (values.split([len(b) for b in batches]) for values in seen(self.model, torch.cat(batches)))
        total = 0.0
        for (e, f), share, z, h in zip(pairs, shares, logits, features, strict=True):
            of_e, of_f = (Domain(h, z, targets[i][: len(z)]).loss() for i in (e, f))
            total = total + share * of_e + (1 - share) * of_f
        return self.penalty.joined(total / len(pairs), None, self.model, self.global_step)
