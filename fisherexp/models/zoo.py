"""Architectures of torchvision and timm by name, cut into features and head."""

import difflib

import torch
from torch import Tensor, nn

from fisherexp.models.backbone import Backbone


class Torchvision(Backbone):
    """A torchvision classification model by name, e.g. resnet50. The final Linear layer becomes the identity.

    name: as in torchvision.models. pretrained: ImageNet weights (downloaded once by torchvision).
    weights: which of those, by torchvision's name, e.g. IMAGENET1K_V1; DEFAULT is the newest.
    own_head: the classifier's head begins as the final layer that came with the model, for its 1000 classes.
    freeze_batch_norm: BatchNorm keeps the statistics it came with, in training too.
    input_shape: (C, H, W); one-channel images are repeated to three channels.

    Raises ValueError for an unknown name, a model without a linear head, or images too small for the model.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        weights: str = "DEFAULT",
        own_head: bool = False,
        freeze_batch_norm: bool = False,
        *,
        input_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        from torchvision import models

        _check_name(name, models.list_models(module=models), "torchvision")
        if pretrained and weights != "DEFAULT":
            known = [entry.name for entry in models.get_model_weights(name)]
            if weights not in known:
                raise ValueError(f"torchvision has weights {', '.join(known)} of '{name}', no '{weights}'")
        self.network = models.get_model(name, weights=weights if pretrained else None)
        _drop_auxiliary_heads(self.network)
        linear = [path for path, module in self.network.named_modules() if isinstance(module, nn.Linear)]
        if not linear or self.network.get_submodule(linear[-1]).out_features != 1000:
            raise ValueError(f"torchvision model '{name}' has no linear classification head to replace")
        own = self.network.get_submodule(linear[-1])
        # In a tuple: a part of the classifier, not of this backbone.
        self.own = (own,) if own_head else ()
        self.network.set_submodule(linear[-1], nn.Identity())
        self.freeze_batch_norm = freeze_batch_norm
        self.num_features = _probe(self, name, input_shape)

    def initialize(self, head: nn.Linear) -> None:
        """Give a head the weights that came with the model, if asked for.

        Raises ValueError where it is for other than 1000 classes.
        """
        for own in self.own:
            if head.weight.shape != own.weight.shape:
                raise ValueError(
                    f"model.own_head=true: the head of a torchvision model is for {own.out_features} classes, the data "
                    f"have {head.out_features}"
                )
            head.load_state_dict(own.state_dict())

    def train(self, mode: bool = True) -> "Torchvision":
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W)."""
        return self.network(x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x)


class Timm(Backbone):
    """A timm model by name, e.g. resnet18.a1_in1k, made without head (num_classes=0) for C input channels.

    name: as in timm.list_models(). pretrained: weights from the model's hub. input_shape: (C, H, W).

    Raises ValueError for an unknown name or images the model does not take, ImportError without timm.
    """

    def __init__(self, name: str, pretrained: bool = False, *, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        try:
            import timm
        except ImportError:
            raise ImportError("model=timm needs the package timm: pip install timm") from None

        _check_name(name, timm.list_models(), "timm")
        self.network = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=input_shape[0])
        self.num_features = _probe(self, name, input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W)."""
        return self.network(x)


def _check_name(name: str, known: list[str], library: str) -> None:
    if name.partition(".")[0] not in known:  # timm: architecture.weights
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"{library} has no model '{name}'{hint}")


def _drop_auxiliary_heads(network: nn.Module) -> None:
    """GoogLeNet and Inception have further heads half-way, and return tuples in training because of them."""
    from torchvision.models import GoogLeNet, Inception3

    if isinstance(network, GoogLeNet):
        network.aux_logits, network.aux1, network.aux2 = False, None, None
    elif isinstance(network, Inception3):
        network.aux_logits, network.AuxLogits = False, None


def _probe(backbone: nn.Module, name: str, input_shape: tuple[int, int, int]) -> int:
    """Width of the features, by one forward pass of zeros: it also shows if the model takes the images."""
    was_training = backbone.training
    try:
        with torch.no_grad():
            return backbone.eval()(torch.zeros(1, *input_shape)).flatten(1).shape[1]
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"model '{name}' does not take images of shape {tuple(input_shape)}: {reason}") from None
    finally:
        backbone.train(was_training)
