"""Networks of libraries as backbones, with the normalization that belongs to their weights."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fisherexp.models.backbone import Backbone
from fisherexp.models.preprocessing import Preprocessing, same
from fisherexp.ranks import say_once


class Imported(Backbone):
    """A network without its last layer; a subclass makes it.

    network: normalized images (B, channels, H, W) to features (B, d). title: what weights these are, for messages and
        the record. input_shape: of the data; images of one channel are repeated to as many as the network takes.
    preprocessing: of the weights; None of new ones, which take the constants of the data.
    own: the last layer that came with it. own_head: the head begins as that layer. take_fitting: it does so
        without being asked, where there are as many classes.
    mean, std: instead of those of `preprocessing`; that they differ is said once.
    resize: images are brought to this side, by the interpolation of the weights. freeze_batch_norm: BatchNorm keeps the
        statistics it came with, in training too. frozen: all of it stays as it came, and only the head is trained.

    Raises ValueError, in one line, for constants or images that do not fit.
    """

    paths = ("weights",)

    def __init__(
        self,
        network: nn.Module,
        title: str,
        input_shape: tuple[int, int, int],
        preprocessing: Preprocessing | None = None,
        own: nn.Linear | None = None,
        own_head: bool = False,
        take_fitting: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: int | None = None,
        freeze_batch_norm: bool = False,
        channels: int = 3,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.title, self.preprocessing = network, title, preprocessing
        # In a tuple: a part of the classifier, not of this backbone.
        self.own = () if own is None else (own,)
        self.own_head, self.take_fitting, self.new_head = own_head, take_fitting, True
        self.resize, self.freeze_batch_norm, self.channels = resize, freeze_batch_norm, channels
        self.frozen = frozen
        if frozen:
            self.network.requires_grad_(False)
        self.mean, self.std = self._constants(mean, std, input_shape[0])
        self.num_features = self._probe(input_shape)

    def initialize(self, head: nn.Linear) -> None:
        """Give a head the weights that came with the network, if asked for, or if they are of a file and fit.

        Raises ValueError where they are asked for and are for another number of classes, or there are none.
        """
        if self.own_head and not self.own:
            raise ValueError(f"model.own_head=true: no linear head came with {self.title}")
        for own in self.own:
            fits = {n: p.shape for n, p in head.named_parameters()} == {n: p.shape for n, p in own.named_parameters()}
            if self.own_head and not fits:
                raise ValueError(
                    f"model.own_head=true: the head of {self.title} is for {own.out_features} classes, the data "
                    f"have {head.out_features}"
                )
            if fits and (self.own_head or self.take_fitting):
                head.load_state_dict(own.state_dict())
                self.new_head = False
            elif self.take_fitting:
                classes = f"{own.out_features} classes, here are {head.out_features}"
                say_once(f"{self.title}: its head is left out, which is for {classes}")

    def origin(self) -> dict[str, Any]:
        if self.preprocessing is None:
            return {}
        own = self.preprocessing
        used = Preprocessing(tuple(self.mean), tuple(self.std))
        text = f"{self.title}, {'a new head' if self.new_head else 'with its head'}; images normalized by {used}"
        if not (same(self.mean, own.mean) and same(self.std, own.std)):
            text += f", not as the weights were trained ({own})"
        if self.resize:
            text += f", resized to {self.resize} pixels"
        trained = {"mean": list(own.mean), "std": list(own.std)}
        trained |= {"size": own.size, "crop": own.crop, "interpolation": own.interpolation}
        return {"text": text, "mean": list(self.mean), "std": list(self.std), "trained_with": trained}

    def train(self, mode: bool = True) -> "Imported":
        super().train(mode)
        if self.frozen:
            self.network.eval()
        elif self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W)."""
        if self.resize and x.shape[-2:] != (self.resize, self.resize):
            # Normalization is linear, and so is this: their order does not matter.
            way = (self.preprocessing and self.preprocessing.interpolation) or "bilinear"
            smooth = way in ("bilinear", "bicubic")
            x = F.interpolate(x, (self.resize, self.resize), mode=way, antialias=smooth)
        return self.network(x.expand(-1, self.channels, -1, -1) if x.shape[1] == 1 else x)

    def _constants(
        self, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
    ) -> tuple[list[float] | None, list[float] | None]:
        """The mean and standard deviation to use; None for those of the data."""
        own = self.preprocessing
        if own is not None and channels not in (1, 3):
            raise ValueError(f"{self.title} takes color images, or gray ones repeated; these have {channels} channels")
        if (mean is None) != (std is None):
            raise ValueError("model.mean and model.std go together: set both, or neither for those of the weights")
        if mean is None:
            return (None, None) if own is None else (list(own.mean), list(own.std))
        for option, given in (("mean", mean), ("std", std)):
            if len(given) not in (1, self.channels):
                raise ValueError(f"model.{option}={list(given)}: one number, or one for each channel")
        if own is not None and not (same(mean, own.mean) and same(std, own.std)):
            used = Preprocessing(tuple(mean), tuple(std))
            say_once(f"model.mean, model.std: {used} for {self.title}, which was trained with {own}")
        mean, std = (list(given) * (self.channels // len(given)) for given in (mean, std))
        return mean, std

    def _probe(self, input_shape: tuple[int, int, int]) -> int:
        """Width of the features, by one forward pass of zeros: it also shows if the network takes the images."""
        was_training = self.training
        try:
            with torch.no_grad():
                return self.eval()(torch.zeros(1, *input_shape)).flatten(1).shape[1]
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            shape = tuple(input_shape)
            raise ValueError(f"model '{self.title}' does not take images of shape {shape}: {reason}") from None
        finally:
            self.train(was_training)
