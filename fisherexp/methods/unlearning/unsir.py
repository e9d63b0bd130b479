"""UNSIR: impair a class with noise that maximizes its loss, then repair the rest.

Paper: Tarun, Chundawat, Mandal, Kankanhalli, arXiv 2111.08947; settings of the SSD authors' code (2308.07707).

    learn    N_c = argmin_N  -CE(f(N), c) + w mean ||N||²    `images` for each forgotten class c, N ~ N(0, 1) at first
    impair   one pass over `copies` of every N_c, labeled c, mixed with `per_class` samples of each retained class
    repair   one pass over those retained samples alone

No forgotten image is looked at, only which classes are to go. Noise lives where the backbone sees it, behind the
normalization, and is learned in eval mode, so that batch statistics stay those of images. One Adam does both passes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.data.batch import Batch
from fisherexp.data.composite import InTurn
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.unlearning.batches import shuffled
from fisherexp.seeds import generator


def noise_loss(logits: Tensor, labels: Tensor, noise: Tensor, weight: float) -> Tensor:
    """What noise (B, …) minimizes: minus its mean cross-entropy, plus `weight` times its mean squared length."""
    return -F.cross_entropy(logits, labels) + weight * noise.square().flatten(1).sum(1).mean()


class UNSIR(ERM):
    """images, copies, per_class: see above. noise_weight: w. noise_steps, noise_lr: of Adam on the noise."""

    paper = "Tarun et al., arXiv 2111.08947"
    requires = ("images", "class_labels")
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "retain"
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        images: Count,
        copies: Count,
        per_class: Count,
        noise_weight: NonNegative,
        noise_steps: Count,
        noise_lr: Positive,
        lr: Positive,
        weight_decay: NonNegative,
        batch_size: Count,
    ) -> None:
        super().__init__(model, Recipe(1, "adam", lr, 0.0, weight_decay, schedule="constant"))
        self.images, self.copies, self.per_class = images, copies, per_class
        self.noise_weight, self.noise_steps, self.noise_lr = noise_weight, noise_steps, noise_lr
        self.batch_size = batch_size
        self.noise: Tensor | None = None
        self.noise_labels = torch.empty(0, dtype=torch.int64)

    def batches(self, setting: Any) -> InTurn:
        """Place-holders carry the number of a noise image as tag 'noise', all others -1.

        Raises ValueError when a class to forget is also one to retain.
        """
        retain, forget = setting.parts["retain"], setting.parts["forget"]
        classes = forget.targets.unique()
        if torch.isin(retain.targets, classes).any():
            raise ValueError("unsir forgets whole classes, but the scenario retains samples of a forgotten class")
        stream = generator("unsir", setting.seed)
        order = torch.randperm(len(retain), generator=stream)
        labels = retain.targets[order].cpu()
        chosen = torch.cat([order[labels == c][: self.per_class] for c in labels.unique()])
        self.noise_labels = classes.cpu().repeat_interleave(self.images)
        shape = (len(self.noise_labels), *setting.data.input_shape)
        self.start_noise = torch.randn(shape, generator=stream)

        number = torch.arange(len(self.noise_labels)).repeat(self.copies)
        both = retain.subset(torch.cat([chosen, chosen[:1].expand(len(number))]))
        impair = both.tagged(noise=torch.cat([torch.full((len(chosen),), -1), number]).to(both.targets.device))
        repair = retain.subset(chosen).tagged(noise=-1)
        return InTurn(shuffled(setting, impair, self.batch_size), shuffled(setting, repair, self.batch_size))

    def on_train_start(self) -> None:
        self.noise_labels = self.noise_labels.to(self.device)
        self.noise = self.learned(self.start_noise) if self.noise is None else self.noise
        self.noise = self.noise.to(self.device)

    def as_images(self, noise: Tensor) -> Tensor:
        """Intensities that normalization turns into `noise`."""
        return noise * self.model.std + self.model.mean

    def learned(self, noise: Tensor) -> Tensor:
        """Noise after its descent, with the model as it is."""
        was_training = self.model.training
        self.model.eval()
        noise = noise.to(self.device).clone().requires_grad_()
        optimizer = torch.optim.Adam([noise], lr=self.noise_lr)
        for _ in range(self.noise_steps):
            loss = noise_loss(self.model(self.as_images(noise)), self.noise_labels, noise, self.noise_weight)
            (noise.grad,) = torch.autograd.grad(loss, [noise])  # of the noise alone
            optimizer.step()
        self.model.train(was_training)
        return noise.detach()

    def loss(self, batch: Batch) -> Tensor:
        images, noisy = batch.inputs, batch.tags["noise"] >= 0
        images = images / 255 if images.dtype == torch.uint8 else images.clone()
        number = batch.tags["noise"][noisy]
        images[noisy] = self.as_images(self.noise[number]).to(images.dtype)
        targets = batch.targets.masked_scatter(noisy, self.noise_labels[number])
        return super().loss(batch._replace(inputs=images, targets=targets))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["noise"] = self.noise

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.noise = checkpoint["noise"]
