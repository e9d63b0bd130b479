"""Adversarial training: minimize the loss where an attacker has made it large.

    min_θ  (1/n) Σ_i max_{‖δ‖∞ ≤ ε} CE(f(x_i + δ), y_i)

Madry et al., ICLR 2018, arXiv 1706.06083. The inner maximum is sought by projected gradient ascent from a random start,
with the network in evaluation mode, as TRADES and MART do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.mixup.mixing import intensities
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.metrics.attacks import pgd, uniform_start


class AdversarialTraining(ERM):
    """radius: ε, of pixels in 0 … 1. steps: of the attack. step: of each, as a share of the radius."""

    paper = "Madry et al., ICLR 2018, arXiv 1706.06083"
    requires = ("images", "class_labels")
    weighs_samples = False

    def __init__(
        self, model: nn.Module, training: Recipe, radius: Positive = 0.1, steps: Count = 5, step: Positive = 0.25
    ) -> None:
        super().__init__(model, training)
        self.radius, self.steps, self.step = radius, steps, step

    def loss(self, batch: Batch) -> Tensor:
        images, labels = intensities(batch.inputs), batch.targets
        return F.cross_entropy(self.model(self.attacked(images, labels)), labels)

    def attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images in [0, 1] with a large cross-entropy."""

        def losses(changed: Tensor) -> Tensor:
            return F.cross_entropy(self.model(changed), labels, reduction="none")

        return self.ascended(losses, images, uniform_start(images, self.radius))

    def ascended(self, losses: Callable[[Tensor], Tensor], images: Tensor, start: Tensor) -> Tensor:
        """Images with large losses, sought from `start`."""
        with evaluating(self.model):
            return pgd(losses, images, start, self.radius, self.step * self.radius, self.steps)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode within, and as it was afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
