"""What all diffusion models share: a network trained to predict noise, an average of its weights, samples from it.

A method of this wing is a schedule of corruption; everything else is here, and the same for all.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fisherexp.config.types import Count, Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.generation.diffusion import noise_loss, sample
from fisherexp.methods.generation.schedule import Schedule
from fisherexp.methods.method import LossMean, ModelMethod
from fisherexp.methods.recipe import Recipe
from fisherexp.problems.generative import scaled

DRAWN_AT_ONCE = 500


class DiffusionModel(ModelMethod):
    """A subclass says which schedule.

    training: of the noise prediction. average: decay of the exponential moving average of the weights, after each
    update; it is what samples are drawn from and what is kept. 0: the last weights.
    clip: cut the image that each prediction implies to [-1, 1] before the step back. deterministic: no fresh noise.
    """

    problems = ("generative",)
    scenarios = ("plain",)
    requires = ("images",)

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        steps: Count,
        average: Probability,
        clip: bool,
        deterministic: bool,
    ) -> None:
        super().__init__(model)
        self.training_recipe, self.epochs = training, training.epochs
        self.steps, self.clip, self.deterministic = steps, clip, deterministic
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(average)).requires_grad_(False)
        self.mean_loss = LossMean()

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """Of this many steps; known once training has begun or the weights are loaded."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # The default generator: a saved state holds it.
        loss = noise_loss(self.model, self.schedule, scaled(batch.inputs), torch.default_generator)
        self.mean_loss.add(loss, batch.size)
        return loss

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        # Here, not at the end of the batch: callbacks come first there, and a saved state would lack the update.
        self.averaged.update_parameters(self.model)

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.mean_loss.take(), sync_dist=True)

    def on_fit_end(self) -> None:
        self.model.load_state_dict(self.averaged.module.state_dict())

    def configure_optimizers(self) -> dict[str, Any]:
        return self.training_recipe.configure(self.model, self.steps_per_epoch)

    @torch.no_grad()
    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """That many images (n, C, H, W), on the processor, pixels near [-1, 1]."""
        self.model.eval()

        def network(images: Tensor, time: Tensor) -> Tensor:
            return self.model(images.to(self.device), time.to(self.device)).cpu()

        drawn = []
        for first in range(0, number, DRAWN_AT_ONCE):
            shape = (min(DRAWN_AT_ONCE, number - first), *self.model.input_shape)
            drawn.append(sample(network, self.schedule, shape, generator, self.deterministic, self.clip))
        return torch.cat(drawn)
