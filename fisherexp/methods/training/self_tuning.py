"""Self-Tuning Networks: the network answers to its hyper-parameters, which move along the validation loss meanwhile.

    training samples:     min_φ  E_ε L_train(w_φ(η + ε), λ(η + ε))                two batches, then
    validation samples:   min_{η, ς}  E_ε L_validation(w_φ(η + ε)) - τ H(ε),   ε ~ N(0, softplus(ς)²)      one

MacKay, Vicol, Lorraine, Duvenaud, Grosse, ICLR 2019, arXiv 1903.03088; the layers: best_response.py. Every sample has
an ε of its own. On validation samples nothing is dropped or augmented, so that η is felt through the layers' gates
alone. The record holds the ordinary network that answers to η at the end, or with `plateau`, as the authors have it,
the one of the best validation loss; the learning rate is then divided by ten where that loss stands still.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive, Share, Size
from fisherexp.data.batch import Batch
from fisherexp.data.composite import Alternating
from fisherexp.methods.mixup.mixing import intensities
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.best_response import respond, settle
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.training.hyperparameters import Hyperparameters
from fisherexp.methods.training.layer_rates import set_rates
from fisherexp.methods.training.plateau import FACTOR, SMALLEST_RATE, Plateau
from fisherexp.methods.training.varied_images import cut_out, with_brightness, with_contrast
from fisherexp.models.eval_mode import eval_mode
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import generator

ROUND = (2, 1)  # batches of training and of validation samples
IMAGES_ONLY = {"brightness": with_brightness, "contrast": with_contrast, "cutout": cut_out}


class SelfTuning(ERM):
    """training: the recipe of the network; its schedule counts training batches. hyper_lr: of Adam on η and ς.

    input_dropout, hidden_dropout: rates before the first and before the other layers. brightness, contrast: how far a
    factor may be from one. cutout: side of the square that is cut out, as a share of the image's. decay: coefficient
    of ½‖weights‖². Each at the start; None: without it.
    validation: share of the training samples that are for the hyper-parameters. warmup_epochs: before they move.
    scale: softplus(ς) at first; tune_scales: whether it moves. entropy: τ.
    tune: False trains an ordinary network at the first values, which stay: what tuning is compared with.
    plateau: epochs, see training/plateau.py; None: no rule. patience: of the rule; it also ends training where the rate
    is below 1e-5. The rate is that of the recipe's schedule times the rule's.

    outcome: under "metrics" validation_loss, without ε; for each hyper-parameter that is used, its value; both of the
    network that is kept. With `plateau` also validation_losses by epoch, lowered and best_epoch, from zero, last_rate.
    """

    name = "self_tuning"
    paper = "MacKay et al., ICLR 2019, arXiv 1903.03088"
    requires = ("floats",)
    weighs_samples = False
    steps_itself = True
    search = {"hyper_lr": "tag(log, interval(1e-3, 0.1))"}
    headings = {
        "validation_loss": "validation\nloss",
        "input_dropout": "input\ndropout",
        "hidden_dropout": "hidden\ndropout",
        "brightness": "brightness",
        "contrast": "contrast",
        "cutout": "cutout",
        "decay": "decay",
    }
    better = {"validation_loss": "lower"}
    counts_with = {
        "warmup_epochs": {"warmup_epochs": 0},
        "hyper_lr": {"warmup_epochs": 0},
        "tune_scales": {"warmup_epochs": 0},
        "entropy": {"warmup_epochs": 0},
        # A rate at which the loss does not fall in every epoch.
        "patience": {
            "plateau": 60,
            "patience": 1,
            "training.epochs": 20,
            "training.optimizer": "adam",
            "training.lr": 10.0,
        },
    }

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        hyper_lr: Positive = 3e-3,
        input_dropout: Share | None = 0.05,
        hidden_dropout: Share | None = 0.05,
        brightness: Share | None = None,
        contrast: Share | None = None,
        cutout: Share | None = None,
        decay: NonNegative | None = None,
        validation: Share = 0.2,
        warmup_epochs: Size = 5,
        scale: Positive = 0.5,
        tune_scales: bool = True,
        entropy: NonNegative = 1e-3,
        tune: bool = True,
        plateau: Count | None = None,
        patience: Count = 75,
    ) -> None:
        super().__init__(model, training)
        given = {"input_dropout": input_dropout, "hidden_dropout": hidden_dropout, "brightness": brightness}
        given |= {"contrast": contrast, "cutout": cutout, "decay": decay}
        self.start_values = {name: value for name, value in given.items() if value is not None}
        if not self.start_values:
            raise ValueError("method.input_dropout=null: no hyper-parameter is left to tune")
        self.hyper_lr, self.validation, self.warmup_epochs = hyper_lr, validation, warmup_epochs
        self.scale, self.tune_scales, self.entropy, self.tune = scale, tune_scales, entropy, tune
        self.plateau = None if plateau is None else Plateau(plateau, patience)

    def setup(self, stage: str) -> None:
        # Before a saved state is loaded, which holds the layers.
        if stage == "fit":
            self.hyper = Hyperparameters(self.start_values, self.scale, felt=self.tune)
            respond(self.model, self.hyper)

    def batches(self, setting: Setting) -> Alternating:
        samples = setting.parts[self.fits_on]
        for name in IMAGES_ONLY.keys() & self.start_values:
            if len(setting.data.input_shape) != 3:
                raise ValueError(f"method.{name}: these data are no images; method.{name}=null goes without")
        order = torch.randperm(len(samples), generator=generator("self_tuning", setting.seed))
        number = round(self.validation * len(samples))
        if not 0 < number < len(samples):
            raise ValueError(
                f"method.validation={self.validation}: of {len(samples)} samples this leaves one side empty"
            )
        held_out, kept = (samples.subset(part.sort().values) for part in (order[:number], order[number:]))
        self.held_out = setting.loader_of(held_out, shuffle=False, batch_size=setting.data.eval_batch_size)
        single = len(kept) > 1 and len(kept) % setting.data.batch_size == 1
        train = setting.loader_of(kept.tagged(held_out=False), shuffle=True, augment=True, drop_last=single)
        self.train_length = len(train)
        tuning = setting.loader_of(held_out.tagged(held_out=True), shuffle=True, augment=False)
        return Alternating(train, tuning, counts=ROUND, leading=0)

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        own = [self.hyper.eta, self.hyper.raw_scale]
        known = set(map(id, own))
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        of_network = self.training_recipe.configure_groups(rest, self.train_length)
        moved = own if self.tune_scales else own[:1]
        return [of_network["optimizer"], torch.optim.Adam(moved, self.hyper_lr)], [of_network["lr_scheduler"]]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.hyper.zero_grad()
        if not batch.tags["held_out"][0]:
            self._train(batch)
        elif self.tune and self.current_epoch >= self.warmup_epochs:
            self._move(batch)
        self.hyper.drawn = None

    def _train(self, batch: Batch) -> None:
        """A step of the network at the drawn hyper-parameters."""
        self.hyper.draw(batch.size, perturbed=self.tune)
        loss = self.objective.loss(self.model(self._varied(batch.inputs)), batch.targets)
        decay = self.hyper.value("decay")
        if decay is not None:
            of_hyper = {id(p) for p in self.hyper.parameters()}
            weights = [p for p in self.model.parameters() if id(p) not in of_hyper]
            loss = loss + decay.mean() * sum(p.square().sum() for p in weights) / 2
        self.manual_backward(loss)
        self.optimizers()[0].step()
        self.lr_schedulers().step()
        self.mean_loss.add(loss, batch.size)

    def _move(self, batch: Batch) -> None:
        """A step of the hyper-parameters; the network's gradients are left unused."""
        self.hyper.draw(batch.size, perturbed=self.tune_scales)
        with eval_mode(self.model):
            loss = self.objective.loss(self.model(batch.inputs), batch.targets)
        self.manual_backward(loss - self.entropy * self.hyper.entropy())
        self.optimizers()[1].step()

    def _varied(self, inputs: Tensor) -> Tensor:
        """Inputs (B, …) augmented as far as the drawn hyper-parameters say."""
        for name, change in IMAGES_ONLY.items():
            strength = self.hyper.value(name)
            if strength is not None:
                inputs = change(intensities(inputs), strength)
        return inputs

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        for name in self.hyper.names:
            self.log(f"tuned/{name}", self.hyper.value(name))
        if self.plateau and self.plateau.take(self._validation_loss(), self.model.state_dict()):
            schedule = self.lr_schedulers()
            set_rates(schedule, [FACTOR * rate for rate in schedule.base_lrs])
        if self.plateau and (self.plateau.over or max(self.lr_schedulers().base_lrs) < SMALLEST_RATE):
            self.trainer.should_stop = True

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Mean loss of the held-out samples, without ε."""
        with eval_mode(self.model):
            losses = [
                self.objective.loss(self.model.forward(batch.inputs), batch.targets, reduction="sum")
                for batch in self.held_out
            ]
        return (sum(losses) / sum(batch.size for batch in self.held_out)).item()

    @torch.no_grad()
    def on_train_end(self) -> None:
        if self.plateau:
            self.model.load_state_dict(self.plateau.best)
            self.outcome |= {"validation_losses": self.plateau.losses, "lowered": self.plateau.lowered}
            rate = self.optimizers()[0].param_groups[0]["lr"]
            self.outcome |= {"best_epoch": self.plateau.best_epoch, "last_rate": rate}
        settle(self.model)
        values = {name: self.hyper.value(name).item() for name in self.hyper.names}
        self.outcome["metrics"] = {"validation_loss": self._validation_loss(), **values}
        self.outcome["scales"] = dict(zip(self.hyper.names, self.hyper.scale.tolist(), strict=True))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.plateau:
            checkpoint["plateau"] = self.plateau.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.plateau:
            self.plateau.load(checkpoint["plateau"])
