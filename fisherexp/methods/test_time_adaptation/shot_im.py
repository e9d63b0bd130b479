"""SHOT-IM: a fixed head, and features for which predictions are certain one by one and diverse together.

Paper: Liang, Hu, Feng, ICML 2020, arXiv 2002.08546, without its pseudo-labels. All parameters but the head's,

    L = (1/B) Σ_i H(p_i) - H(p̄),    p̄ = (1/B) Σ_i p_i.

passes=0: one step per batch of the stream, predicted before it. passes>0, as published: so many passes over a
segment's images before any of them is predicted (then not a method for streams: it has seen all of them), with the
learning rate η (1 + 10 t/T)^(-3/4) at step t of T.

Where the official code differs: it adds 1e-5 inside logarithms, has Nesterov's momentum and decays weights by 1e-3;
its BatchNorm predicts by running averages, here by batch statistics.
"""

import torch
from torch import Tensor, nn

from fisherexp.config.types import Size
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.entropy import entropy, log_softmax
from fisherexp.methods.test_time_adaptation.norms import use_batch_statistics
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.scenarios.setting import Setting


def information(logits: Tensor) -> Tensor:
    """Mean entropy minus entropy of the mean prediction, of logits (B, C): minus the mutual information."""
    log_p = log_softmax(logits)
    mean = log_p.exp().mean(0, keepdim=True)
    return entropy(log_p).mean() + torch.special.xlogy(mean, mean).sum()


class ShotIM(Adaptation):
    """passes: see above."""

    paper = "Liang et al., ICML 2020, arXiv 2002.08546"

    def __init__(self, model: nn.Module, update: UpdateRule, passes: Size) -> None:
        super().__init__(model, update)
        self.passes = passes

    def prepare(self) -> None:
        use_batch_statistics(self.model)
        self.model.backbone.requires_grad_(True)

    def evaluate(self, setting: Setting) -> None:
        """Raises ValueError where it learns nothing, from single images, or forgets before every batch what it did."""
        if self.passes and any(segment.reset == "each_batch" for segment in setting.segments):
            raise ValueError(
                f"shot_im: with method.passes={self.passes} it learns a segment before its first batch, and this "
                "scenario forgets before every batch: take method.passes=0, or scenario=reset_each_shift"
            )
        if _together(setting) == 1:
            raise ValueError(
                "shot_im: the information in the prediction of a single image is 0, so it learns nothing from one; "
                "set scenario.batch_size or scenario.window"
            )
        super().evaluate(setting)

    def begin(self, part: str) -> None:
        if not self.passes:
            return
        size = _together(self.setting)
        single = len(self.setting.parts[part]) % size == 1
        loader = self.setting.loader(part, shuffle=True, batch_size=size, drop_last=single)
        steps = self.passes * len(loader)
        for number in range(self.passes):
            for step, batch in enumerate(loader, start=number * len(loader) + 1):
                for group in self.optimizer.param_groups:
                    group["lr"] = self.rule.lr * (1 + 10 * step / steps) ** -0.75
                with torch.enable_grad():
                    self._learn(batch.inputs)

    def adapt(self, images: Tensor) -> Tensor:
        return self.predict(images) if self.passes else self._learn(images)

    def _learn(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        information(logits).backward()
        self.tally(forward_samples=len(images), backward_samples=len(images))
        self.step()
        return logits


def _together(setting: Setting) -> int:
    """How many images it learns from in a step."""
    return setting.window or setting.stream_batch_size or setting.data.eval_batch_size
