"""What test-time methods share: configure the model once, then per batch predict and update, and reset all state.

A method says in `prepare` what of the model may change, in `adapt` what it does with a batch, in `predict` what it
answers when it may not adapt, in `blank` what it remembers besides weights and optimizer.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.test_time_adaptation.norms import affine_parameters, use_batch_statistics
from fisherexp.methods.test_time_adaptation.update import UpdateRule
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import generator

COUNTS = ("samples", "forward_samples", "backward_samples", "updates", "seconds")


class Adaptation(ModelMethod):
    """Goes through the segments of a stream as the setting says. As it stands it answers with the source model.

    The network that answers is `model`, in eval mode (so without dropout), and its weights are the run's result.
    The optimizer changes `learner`, by default the same network. What may change is what requires gradients in
    `networks()`, and their buffers; `restart` puts all of it back, makes a new optimizer and a blank state. Only
    the random numbers of augmentations go on.

    The outcome counts samples: forward_samples through any network, backward_samples whose loss was differentiated.
    """

    scenarios = ("stream",)
    start = "source"
    adapts_at_test = True
    steps_itself = True
    epochs = 0

    # A sliding window of single images gives batch statistics and an affinity something to work with.
    uses_window = True

    def __init__(self, model: nn.Module, update: UpdateRule | None = None) -> None:
        super().__init__(model)
        self.rule = update
        self.setting: Setting | None = None
        self.generator: torch.Generator | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.state: dict[str, Any] = {}
        self.changing: list[Tensor] | None = None
        self.source: list[Tensor] = []
        self.origin: list[Tensor] = []
        self.counts: list[dict[str, Any]] = []
        self.count: dict[str, Any] = {}
        self.recent: Tensor | None = None
        self.unused = 0

    # --- what a method says ----------------------------------------------------------------------------

    def prepare(self) -> None:
        """Configure the model, whose parameters are frozen so far. Called once, before the first segment."""

    @property
    def learner(self) -> nn.Module:
        """The network whose parameters the optimizer changes."""
        return self.model

    def networks(self) -> list[nn.Module]:
        """All networks that change, the one that answers first."""
        return [self.model]

    def blank(self) -> dict[str, Any]:
        """A fresh `state`: plain containers and tensors."""
        return {}

    def adapt(self, images: Tensor) -> Tensor:
        """Logits (B, C) of a batch, after which the method may have changed."""
        return self.predict(images)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) of a batch, changing nothing."""
        self.tally(forward_samples=len(images))
        return self.model(images)

    # --- what is the same for all ----------------------------------------------------------------------

    def evaluate(self, setting: Setting) -> None:
        """Ready for the next test loop, as the source model.

        Raises ValueError on several ranks, and where a batch of one image has no batch statistics.
        """
        if setting.world_size > 1:
            raise ValueError(
                f"{self.title} follows one stream in its order, {setting.world_size} ranks would be as "
                "many streams: trainer.devices=1"
            )
        super().evaluate(setting)
        self.setting = setting
        self.to(setting.device)
        self.generator = generator("views", setting.seed, self.title)
        if self.changing is None:
            self.model.eval()
            self.model.requires_grad_(False)
            self.prepare()
            self.to(setting.device)
            self.changing = [t for network in self.networks() for t in (*_moving(network), *network.buffers())]
            self.source = [t.detach().clone() for t in self.changing]
            self.origin = [p.detach().clone() for p in _moving(self.model)]
        self.restart()
        self.counts = [{"part": part} | dict.fromkeys(COUNTS, 0) for part in setting.evaluated]
        self.count = dict.fromkeys(COUNTS, 0)
        self._refuse_single_images(setting)

    @torch.no_grad()
    def restart(self) -> None:
        """Back to the source model, in all state."""
        for tensor, value in zip(self.changing, self.source, strict=True):
            tensor.copy_(value)
        if self.rule is not None:
            self.optimizer = self.rule.build(_moving(self.learner))
        self.state = self.blank()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """One batch of a segment. Raises ValueError where a logit is not finite."""
        begun = time.perf_counter()
        segment = self.setting.segments[dataloader_idx]
        self.count = self.counts[dataloader_idx]
        if segment.reset == "each_batch" or (segment.reset == "before" and batch_idx == 0):
            self.restart()
        if batch_idx == 0:
            self.recent, self.unused = None, 0
            if segment.adapt:
                self.begin(self.setting.evaluated[dataloader_idx])
        logits = self._answer(batch.inputs, segment.adapt).detach()
        if not logits.isfinite().all():
            raise ValueError(
                f"{self.title}: the logits of batch {batch_idx} of '{self.setting.evaluated[dataloader_idx]}'"
                " are not finite; a smaller learning rate may help"
            )
        self.evaluation.update(dataloader_idx, logits, batch.targets)
        self.tally(samples=batch.size, seconds=time.perf_counter() - begun)

    def begin(self, part: str) -> None:
        """A segment on which the method may adapt begins."""

    def on_test_end(self) -> None:
        self.outcome = self.summary()

    def summary(self) -> dict[str, Any]:
        """Counts over all segments and by segment, and how far the answering weights are from the source's."""
        names = {name: None for count in self.counts for name in count if name != "part"}
        totals = {name: sum(count.get(name, 0) for count in self.counts) for name in names}
        return totals | {"distance": self.distance(), "segments": self.counts}

    def distance(self) -> float:
        """‖θ - θ₀‖ of the answering network, over the parameters that may change."""
        squares = [(p.detach() - o).square().sum() for p, o in zip(_moving(self.model), self.origin, strict=True)]
        return torch.stack(squares).sum().sqrt().item() if squares else 0.0

    def tally(self, **numbers: float) -> None:
        """Add to the counts of the current segment."""
        for name, number in numbers.items():
            self.count[name] = self.count.get(name, 0) + number

    def plain_state(self) -> dict[str, Any]:
        """`state` as it is saved."""
        return self.state

    def leave_files(self, folder: Path) -> None:
        """adaptation.pt: state, optimizer, further networks and random numbers; loads with weights_only=True."""
        saved = {"state": self.plain_state(), "generator": self.generator.get_state()}
        if self.optimizer is not None:
            saved["optimizer"] = self.optimizer.state_dict()
        saved["networks"] = [network.state_dict() for network in self.networks()[1:]]
        torch.save(saved, folder / "adaptation.pt")

    @property
    def title(self) -> str:
        """The method's name in messages."""
        return type(self).__name__

    def mirrors(self, flip: bool | None) -> bool:
        """Whether views may be mirror images: as the option says, else as the data do."""
        return self.setting.data.mirrors if flip is None else flip

    def adapt_norms(self, skip: Iterable[str] = ()) -> None:
        """For `prepare`: affine parameters of normalization layers, BatchNorm by batch statistics.

        Raises ValueError for a model without such layers.
        """
        parameters = affine_parameters(self.model, skip)
        if not parameters:
            raise ValueError(
                f"{self.title} adapts normalization layers and this model has none that it may: take a model with "
                "some (e.g. model=small_cnn, model=mlp model.batch_norm=true), or method=lame, shot_im, cotta, memo"
            )
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        use_batch_statistics(self.model)

    def step(self) -> None:
        """One step of the optimizer along the gradients that are there."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.tally(updates=1)

    def _answer(self, images: Tensor, adapt: bool) -> Tensor:
        window = self.setting.window if self.uses_window else 0
        if window:
            self.recent = images if self.recent is None else torch.cat([self.recent, images])[-window:]
            images, self.unused = self.recent, self.unused + 1
            adapt = adapt and self.unused == window  # each image serves in one update
            if adapt:
                self.unused = 0
        with torch.set_grad_enabled(adapt):
            logits = self.adapt(images) if adapt else self.predict(images)
        return logits[-1:] if window else logits

    def _refuse_single_images(self, setting: Setting) -> None:
        size = setting.stream_batch_size or setting.data.eval_batch_size
        always = setting.window or not self.uses_window or size == 1
        alone = [part for part in setting.evaluated if always or len(setting.parts[part]) % size == 1]
        if not alone:
            return
        image = torch.zeros(1, *setting.data.input_shape, dtype=torch.uint8, device=setting.device)
        try:
            with torch.no_grad():
                self.model(image)
        except ValueError:
            raise ValueError(
                f"{self.title}: '{alone[0]}' has a batch of a single image, and a layer of this model takes one value "
                "per channel from it, so batch statistics do not exist; choose another batch size, or method=lame, "
                "method=source"
            ) from None


def _moving(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]
