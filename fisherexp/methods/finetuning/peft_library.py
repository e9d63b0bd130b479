"""The adapters of Hugging Face's library peft (Mangrulkar et al. 2022) on any network, by peft's own names.

Of its methods those that change linear layers, train alone and can be merged; not LoftQ, which needs a GPU there.
"""

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fisherexp.adapters.peft_format import trained_beside
from fisherexp.config.problem import nearest
from fisherexp.config.types import Count
from fisherexp.models.eval_mode import eval_mode

INITIALIZATIONS = ("olora", "orthogonal", "mica", "corda", "lora_ga")  # of LoRA
SUBTRACTED = ("olora", "corda", "lora_ga")  # their start is taken out of the weights
LOOK = ("corda", "lora_ga")  # at inputs, at gradients, before they begin


def library() -> ModuleType:
    """peft. Raises ModuleNotFoundError, in one line, where it is not installed."""
    try:
        import peft
    except ImportError:
        raise ModuleNotFoundError("method=peft_adapter needs peft: pip install 'fisherexp[peft]'") from None
    return peft


@dataclass(frozen=True)
class Peft:
    """name: of an initialization of LoRA (olora, orthogonal, mica, corda, lora_ga) or of a method. options: others than
    peft's defaults, as its config class has them: {"r": 4, "lora_alpha": 8}. batches: of the training part that corda
    and lora_ga look at first.
    """

    counts_with: ClassVar[dict[str, dict[str, Any]]] = {"options": {"options": {"r": 2}}}
    without_effect: ClassVar[dict[str, str]] = {
        "batches": "with other names than corda and lora_ga, and beyond the last"
    }

    name: Literal[
        "olora",
        "orthogonal",
        "mica",
        "corda",
        "lora_ga",
        "vera",
        "randlora",
        "fourierft",
        "waveft",
        "shira",
        "supertuning",
        "osf",
        "oft",
        "loha",
        "lokr",
        "hra",
        "hira",
        "delora",
        "gralora",
        "psoft",
        "road",
    ] = "olora"
    options: dict[str, Any] | None = None
    batches: Count = 4

    def config(self, layers: list[str]) -> Any:
        """peft's config for layers of these names. Raises ValueError for options it does not know or take."""
        peft = library()
        given = {"target_modules": "|".join(map(re.escape, layers))}
        kind = peft.LoraConfig
        if self.name in INITIALIZATIONS:
            given["init_lora_weights"] = self.name
        else:
            kind = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType[self.name.upper()]]
        if self.name == "corda":
            given["corda_config"] = peft.tuners.lora.config.CordaConfig()
        if self.name == "lora_ga":
            given["lora_ga_config"] = peft.tuners.lora.config.LoraGAConfig()
        known = {option.name for option in dataclasses.fields(kind)}
        for option in self.options or {}:
            if option not in known:
                near = nearest(option, known)
                raise ValueError(
                    f"method.peft.options.{option}: {kind.__name__} has none of that name, nearest: {near}"
                )
        try:
            return kind(**given | dict(self.options or {}))
        except (TypeError, ValueError) as error:
            raise ValueError(f"method.peft.options: {kind.__name__} says: {_first_line(error)}") from None

    def inject(self, model: nn.Module, layers: list[str], batches: list[Any], loss: Callable[[Any], Tensor]) -> Any:
        """Give the layers of `model` adapters and freeze all else, in place; returns peft's wrapping of it.

        batches, loss: what corda and lora_ga look at. Raises ValueError where peft cannot.
        """
        peft, config = library(), self.config(layers)
        try:
            if self.name == "corda":
                from peft.tuners.lora.corda import preprocess_corda

                with eval_mode(model):
                    parts = [part for batch in batches for part in _fed(model, layers[0], batch.inputs)]
                    preprocess_corda(model, config, lambda: [model(part) for part in parts])
            if self.name == "lora_ga":
                from peft.tuners.lora.loraga import preprocess_loraga

                def step() -> None:  # in train mode, but statistics of BatchNorm stay those of the source
                    for layer in model.modules():
                        if isinstance(layer, _BatchNorm):
                            layer.eval()
                    for batch in batches:
                        loss(batch).backward()

                with eval_mode(model):  # for the mode to be restored
                    preprocess_loraga(model, config, step)
                model.zero_grad()
            return peft.get_peft_model(model, config)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"method.peft.name={self.name}: peft says: {_first_line(error)}") from None

    def state(self, wrapped: Any) -> dict[str, Tensor]:
        """A copy of what peft saves of the adapters."""
        found = library().get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in found.items()}

    def files(self, wrapped: Any, start: Mapping[str, Tensor], layers: list[str]) -> tuple[dict, dict[str, Tensor]]:
        """(adapter_config.json, tensors of adapter_model.safetensors), which fit the weights before `inject`.

        start: the state after `inject`. Where it was taken out of the weights it is put beside what was trained, as
        peft converts it: LoRA of twice the rank.
        """
        tensors, model = self.state(wrapped), wrapped.get_base_model()
        with tempfile.TemporaryDirectory() as folder:
            wrapped.peft_config["default"].save_pretrained(folder)
            config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
        if self.name in SUBTRACTED:
            for name, tensor in tensors.items():
                inner = "lora_A" in name
                tensors[name] = torch.cat([tensor, start[name] if inner else -start[name]], dim=0 if inner else 1)
            growth = 2**0.5 if config["use_rslora"] else 2
            config |= {"r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"], "init_lora_weights": True}
            config |= {"corda_config": None, "lora_ga_config": None}
        modules, beside = trained_beside(model, dict.fromkeys(layers, model))
        config |= {"modules_to_save": modules or None, "inference_mode": True}
        return config, tensors | {name: tensor.detach().cpu().clone() for name, tensor in beside.items()}


def _fed(model: nn.Module, layer: str, inputs: Any) -> Iterator[Any]:
    """A batch as corda's covariances want it, whose layers must see matrices: as it is, or of sequences one by one,
    without their padding."""
    seen: list[int] = []
    hook = model.get_submodule(layer).register_forward_pre_hook(lambda _, given: seen.append(given[0].ndim))
    with torch.no_grad():
        model(inputs)
    hook.remove()
    if seen[0] == 2:
        yield inputs
        return
    if not isinstance(inputs, Mapping):
        yield from inputs.split(1)
        return
    mask = inputs.get("attention_mask")
    for i in range(len(next(iter(inputs.values())))):
        one = {name: part[i : i + 1] for name, part in inputs.items()}
        if mask is not None:
            one = {n: part[:, mask[i].bool()] if part.shape[1:] == mask.shape[1:] else part for n, part in one.items()}
        yield one


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
