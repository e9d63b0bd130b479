"""TRADES: be right on clean images, and say the same of attacked ones.

    min_θ  (1/n) Σ_i CE(f(x_i), y_i) + β max_{‖δ‖∞ ≤ ε} KL(softmax f(x_i) ‖ softmax f(x_i + δ))

Zhang et al., ICML 2019, arXiv 1901.08573. The attack begins at Gaussian noise of deviation 0.001, as in their code.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.config.types import NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.mixup.mixing import intensities
from fisherexp.methods.training.adversarial_training import AdversarialTraining, evaluating
from fisherexp.methods.unlearning.teacher import kl_to_teacher

START = 0.001


class TRADES(AdversarialTraining):
    """beta: β. Further options: see AdversarialTraining."""

    paper = "Zhang et al., ICML 2019, arXiv 1901.08573"
    search = {"beta": "tag(log, interval(0.5, 20))"}
    weighs_samples = False

    def __init__(self, beta: NonNegative = 6.0, **options: object) -> None:
        super().__init__(**options)
        self.beta = beta

    def loss(self, batch: Batch) -> Tensor:
        images, labels = intensities(batch.inputs), batch.targets
        clean, other = self.model(images), self.model(self.moved(images))
        return F.cross_entropy(clean, labels) + self.beta * kl_to_teacher(other, clean).mean()

    def moved(self, images: Tensor) -> Tensor:
        """Images in [0, 1] of which the model says something else."""
        with torch.no_grad(), evaluating(self.model):
            clean = self.model(images)
        noise = torch.randn(images.shape).to(images)
        return self.ascended(lambda changed: kl_to_teacher(self.model(changed), clean), images, images + START * noise)
