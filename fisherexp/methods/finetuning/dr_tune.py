"""DR-Tune: fine-tune while the head also has to classify the frozen encoder's features, turned onto the present ones.

    min  CE of φ over the batch's features z_d and a queue of frozen features z_p,   one mean over all B + K of them

Wei, Hu, Yang et al., ICCV 2023, arXiv 2308.12058; how z_p are turned and shifted: semantic_calibration.py. As in the
authors' code a batch enters the queue behind its loss, and the queue begins with frozen features in both places. There
the rotation is found anew in every tenth batch only, and left out in those between (rotate_every=10).
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Positive, Size
from fisherexp.data.batch import Batch
from fisherexp.data.composite import endless
from fisherexp.methods.finetuning.finetuning import FineTuning
from fisherexp.methods.finetuning.semantic_calibration import calibrated, rotation
from fisherexp.methods.recipe import Recipe
from fisherexp.models.eval_mode import eval_mode
from fisherexp.scenarios.setting import Setting


class FeatureQueue(nn.Module):
    """The last `size` samples: features now and frozen (size, d), and labels (size,); what comes first goes first."""

    now: Tensor
    frozen: Tensor
    labels: Tensor

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("now", torch.zeros(size, features))
        self.register_buffer("frozen", torch.zeros(size, features))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.long))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def add(self, now: Tensor, frozen: Tensor, labels: Tensor) -> None:
        """Put samples in the place of the oldest; of more than there is room for, the last."""
        now, frozen, labels = now[-self.size :], frozen[-self.size :], labels[-self.size :]
        places = (self.place + torch.arange(len(labels), device=labels.device)) % self.size
        self.now[places], self.frozen[places], self.labels[places] = now, frozen, labels
        self.place.copy_((self.place + len(labels)) % self.size)


class DRTune(FineTuning):
    """queue: K; 0 is plain fine-tuning. rotate_every: a rotation is found in every so many-th batch of an epoch, and
    applied there; 0 for never. calibrate: whether frozen features are turned and shifted at all.
    head_std: deviation of new first weights of the head; None keeps those that it comes with.
    Further options: see FineTuning.

    outcome: under "metrics" also frozen_accuracy, that of the head on the queue's frozen features as calibrated at the
        end, in %; procrustes, the distance of turned frozen features from present ones over that of unturned ones.
    """

    name = "dr_tune"
    paper = "Wei et al., ICCV 2023, arXiv 2308.12058"
    requires = ("class_labels", "features")
    weighs_samples = False
    search = {"finetune.lr": "tag(log, interval(1e-4, 1e-1))"}
    headings = {
        "trained_numbers": "trained\nnumbers",
        "trained_share": "trained %",
        "relative_change": "relative\nchange",
        "frozen_accuracy": "head on frozen\nfeatures %",
        "procrustes": "turned over\nunturned",
    }

    def __init__(
        self,
        model: nn.Module,
        finetune: Recipe,
        queue: Size = 256,
        rotate_every: Size = 1,
        calibrate: bool = True,
        head_std: Positive | None = None,
        head_lr: Positive | None = None,
    ) -> None:
        super().__init__(model, finetune, head_lr)
        self.size, self.rotate_every, self.calibrate, self.head_std = queue, rotate_every, calibrate, head_std
        self.setting: Setting | None = None

    def freeze(self) -> None:
        # Submodules: a saved state has them, too.
        self.encoder = copy.deepcopy(self.model).requires_grad_(False)
        self.queue = FeatureQueue(self.size, self.model.head.in_features)
        if self.head_std is not None:
            nn.init.normal_(self.model.head.weight, std=self.head_std)

    def batches(self, setting: Setting) -> Any:
        self.setting = setting
        return super().batches(setting)

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Fill the queue with frozen features, of the training samples as often as it takes, unless a saved state has
        filled it."""
        filled = self.size if self.trainer.global_step else 0
        batches = endless(self.setting.loader(self.fits_on, rank=0, world_size=1))
        with eval_mode(self.encoder):
            while filled < self.size:
                batch = next(batches)
                features = self.encoder.features(batch.inputs.to(self.device))
                self.queue.add(features, features, batch.targets.to(self.device))
                filled += batch.size

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.turns = bool(self.rotate_every) and batch_idx % self.rotate_every == 0
        return super().training_step(batch, batch_idx)

    def loss(self, batch: Batch) -> Tensor:
        features = self.model.features(batch.inputs)
        if not self.size:
            return self.objective.loss(self.model.logits(features), batch.targets)
        frozen = self.calibrated(features.detach().norm(dim=1).mean(), self.turns)
        both, targets = torch.cat([features, frozen]), torch.cat([batch.targets, self.queue.labels])
        loss = self.objective.loss(self.model.logits(both), targets)
        with torch.no_grad(), eval_mode(self.encoder):
            self.queue.add(features.detach(), self.encoder.features(batch.inputs), batch.targets)
        return loss

    def calibrated(self, norm: Tensor | float, rotate: bool) -> Tensor:
        """Frozen features (K, d) of the queue, as the head is to classify them."""
        queue = self.queue
        if not self.calibrate:
            return queue.frozen.clone()
        return calibrated(queue.frozen, queue.now, queue.labels, self.model.head.weight.detach(), norm, rotate)

    def on_train_end(self) -> None:
        super().on_train_end()
        if self.size:
            self.outcome["metrics"] |= self._of_the_queue()

    @torch.no_grad()
    def _of_the_queue(self) -> dict[str, float]:
        queue = self.queue
        logits = self.model.logits(self.calibrated(queue.now.norm(dim=1).mean(), bool(self.rotate_every)))
        now, frozen = (F.normalize(features) for features in (queue.now, queue.frozen))
        now, frozen = now - now.mean(0), frozen - frozen.mean(0)
        turned = (frozen @ rotation(frozen, now) - now).norm()
        return {
            "frozen_accuracy": 100 * (logits.argmax(1) == queue.labels).double().mean().item(),
            "procrustes": (turned / (frozen - now).norm()).item(),
        }
