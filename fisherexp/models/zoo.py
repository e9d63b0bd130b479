"""Architectures of torchvision and timm by name, cut into features and head."""

import difflib
from typing import Any

from torch import nn

from fisherexp.config.nodes import names_a_file
from fisherexp.config.types import AtLeastOne, Count, Positive
from fisherexp.models.imported import Imported
from fisherexp.models.preprocessing import of_timm, of_torchvision
from fisherexp.models.weight_files import file_of_weights, read_weights
from fisherexp.models.weights import load_headless, unwrapped

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# Of torchvision's models those whose weights are of images in [-1, 1], to which the network itself brings them.
BETWEEN_MINUS_ONE_AND_ONE = ("googlenet", "inception_v3")


class Torchvision(Imported):
    """A torchvision classification model by name, e.g. resnet50. The final Linear layer becomes the identity.

    name: as in torchvision.models. pretrained: ImageNet weights (downloaded once by torchvision).
    weights: which of those, by torchvision's name, e.g. IMAGENET1K_V1; DEFAULT is the newest. Or a file of weights,
        which is read whatever `pretrained` says; the classifier's head begins as its head, where that is for as many
        classes.
    own_head: the classifier's head begins as the final layer that came with the model, for its classes.
    Further options, input_shape: see Imported.

    Raises ValueError for an unknown name, a model without a linear head, weights that do not fit, or images too small
    for the model.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        weights: str = "DEFAULT",
        own_head: bool = False,
        freeze_batch_norm: bool = False,
        frozen: bool = False,
        mean: list[float] | None = None,
        std: AtLeastOne[Positive] | None = None,
        resize: Count | None = None,
        *,
        input_shape: tuple[int, int, int],
    ) -> None:
        from torchvision import models

        _check_name(name, models.list_models(module=models), "torchvision")
        of_file = names_a_file(weights)
        entries = {entry.name: entry for entry in models.get_model_weights(name)}
        if pretrained and not of_file and weights not in ("DEFAULT", *entries):
            raise ValueError(f"torchvision has weights {', '.join(entries)} of '{name}', no '{weights}'")
        network = models.get_model(name, weights=weights if pretrained and not of_file else None)
        _drop_auxiliary_heads(network)
        linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not linear or network.get_submodule(linear[-1]).out_features != 1000:
            raise ValueError(f"torchvision model '{name}' has no linear classification head to replace")
        own = network.get_submodule(linear[-1])
        network.set_submodule(linear[-1], nn.Identity())
        title, preprocessing = name, None
        if of_file or pretrained:
            chosen = entries.get(weights) or models.get_model_weights(name).DEFAULT
            title, preprocessing = f"torchvision {name} ({chosen.name})", of_torchvision(chosen.transforms())
        if of_file:
            title, own = _from_file(network, weights, linear[-1], f"torchvision {name}")
            if name in BETWEEN_MINUS_ONE_AND_ONE:
                network.transform_input = True  # which torchvision sets where it loads weights itself
        images = {"mean": mean, "std": std, "resize": resize}
        images |= {"freeze_batch_norm": freeze_batch_norm, "frozen": frozen}
        super().__init__(network, title, input_shape, preprocessing, own, own_head, of_file, **images)


class Timm(Imported):
    """A timm model by name, e.g. resnet18.a1_in1k, made without head for C input channels; for three, where it comes
    with weights.

    name: as in timm.list_models(). pretrained: weights from the model's hub.
    weights: a file of weights in place of these, read whatever `pretrained` says; the classifier's head begins as its
        head, where that is for as many classes.
    own_head: the classifier's head begins as the one that came with the weights, for its classes.
    Further options, input_shape: see Imported.

    Raises ValueError for an unknown name, weights that cannot be had or do not fit, or images the model does not take,
    ImportError without timm.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        weights: str | None = None,
        own_head: bool = False,
        freeze_batch_norm: bool = False,
        frozen: bool = False,
        mean: list[float] | None = None,
        std: AtLeastOne[Positive] | None = None,
        resize: Count | None = None,
        *,
        input_shape: tuple[int, int, int],
    ) -> None:
        try:
            import timm
        except ImportError:
            raise ImportError("model=timm needs the package timm: pip install timm") from None

        _check_name(name, timm.list_models(), "timm")
        title, preprocessing, own = name, None, None
        if weights is not None:
            network = timm.create_model(name, num_classes=0)
            title, own = _from_file(network, weights, network.pretrained_cfg.get("classifier"), f"timm {name}")
        elif pretrained:
            network = _of_hub(timm, name)
            title = f"timm {name.partition('.')[0]}.{network.pretrained_cfg.get('tag')}"
            own = network.get_classifier()
            network.reset_classifier(0)
        else:
            network = timm.create_model(name, num_classes=0, in_chans=input_shape[0])
        if pretrained or weights is not None:
            preprocessing = of_timm(network.pretrained_cfg)
        own = own if isinstance(own, nn.Linear) else None
        images = {"mean": mean, "std": std, "resize": resize}
        images |= {"freeze_batch_norm": freeze_batch_norm, "frozen": frozen}
        images["channels"] = input_shape[0] if preprocessing is None else 3
        super().__init__(network, title, input_shape, preprocessing, own, own_head, weights is not None, **images)


def _of_hub(timm: Any, name: str) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"model.name={name}: its weights cannot be had from the hub: {reason}") from None


def _from_file(network: nn.Module, weights: str, head: str | tuple | None, title: str) -> tuple[str, nn.Linear | None]:
    """Load a file into a network without head; (what it is called, the head of the file)."""
    file = file_of_weights(weights)
    try:
        tensors = unwrapped(read_weights(file))
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(AUXILIARY)}
        return f"{title} ({file.name})", load_headless(network, kept, head if isinstance(head, str) else "")
    except ValueError as error:
        raise ValueError(f"model.weights={weights}: {error}") from None


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
