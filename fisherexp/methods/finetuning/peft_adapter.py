"""An adapter of the library peft, by its name there: olora, vera, fourierft, shira, osf and more.

    W' = W + what peft's method says, merged in the end

Library: Mangrulkar et al. 2022, https://github.com/huggingface/peft, which names the papers; see peft_library.py.
Everything around the adapter is as for this project's own: the source, the recipe, the head, the figures of a run.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters.inject import finds_parameters
from fisherexp.config.types import AtLeastOne, Pattern, Positive
from fisherexp.methods.finetuning.finetuning import HEAD, MergedTuning
from fisherexp.methods.finetuning.peft_library import LOOK, SUBTRACTED, Peft, library
from fisherexp.methods.need import Costs, Need
from fisherexp.methods.recipe import Recipe


class FirstBatches(Need):
    """The first batches of the training part, for names that look at them before they begin."""

    def __init__(self) -> None:
        super().__init__("batches")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[list[Any], Costs]:
        if method.peft.name not in LOOK:
            return [], []
        found = [
            batch for batch, _ in zip(bench.setting.loader(method.fits_on), range(method.peft.batches), strict=False)
        ]
        samples = sum(batch.size for batch in found)
        backward = samples if method.peft.name == "lora_ga" else 0
        return found, [{"seconds": 0.0, "forward_samples": samples, "backward_samples": backward}]


class PeftAdapter(MergedTuning):
    """peft: which adapter, with which options. targets, exclude: layers, as for AdapterTuning. trained: an expression
    for parameters that are trained beside the adapters. Further options: see FineTuning.

    Raises ModuleNotFoundError without peft, ValueError where `trained` is found in no name.
    """

    name = "peft_adapter"
    paper = "Mangrulkar et al. 2022, the library peft"
    package = "peft"
    needs = (FirstBatches(),)
    search = {"finetune.lr": "tag(log, interval(1e-4, 1e-1))"}
    counts_with = {"targets": {"exclude": None, "targets": "^head$"}}

    def __init__(
        self,
        model: nn.Module,
        finetune: Recipe,
        peft: Peft,
        targets: Pattern | AtLeastOne[str],
        exclude: Pattern | None = None,
        trained: Pattern | None = None,
        head_lr: Positive | None = None,
    ) -> None:
        library()
        super().__init__(model, finetune, head_lr)
        self.peft, self.targets, self.exclude, self.trained = peft, targets, exclude, trained
        self.layers: list[str] = []
        self.wrapped: tuple[Any, ...] = ()  # in a tuple: its modules are the model's own
        self.weights: dict[str, Tensor] = {}  # of the source
        self.open: list[str] = []  # names of what was no frozen part of it
        self.subtracted: dict[str, Tensor] = {}  # adapters at the start, where these were taken out of the weights

    def freeze(self) -> None:
        if self.trained is not None and not finds_parameters(self.model, self.trained):
            raise ValueError(f"method.trained: '{self.trained}' is found in no name of a parameter")
        self.weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.open = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.layers = adapters.layer_names(self.model, self.targets, self.exclude)
        self.wrapped = (self.peft.inject(self.model, self.layers, self.given["batches"], self.loss),)
        if self.peft.name in SUBTRACTED:
            self.subtracted = self.peft.state(self.wrapped[0])
        for name, parameter in self.model.named_parameters():
            if self.trained and re.search(self.trained, name.replace(".base_layer", "")):
                parameter.requires_grad_()

    def keep(self) -> None:
        self.peft_format = self.peft.files(self.wrapped[0], self.subtracted, self.layers)

    def merge_weights(self) -> None:
        self.wrapped[0].merge_and_unload()
        self.wrapped = ()

    @torch.no_grad()
    def on_train_end(self) -> None:
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.outcome["metrics"] = {
            "trained_numbers": trained,
            "trained_share": 100 * trained / sum(before.numel() for before in self.weights.values()),
        }
        self.merge()
        body = {name: p for name, p in self.model.named_parameters() if not name.startswith(HEAD)}
        moved = sum((p - self.weights[name].to(p)).double().square().sum().item() for name, p in body.items())
        size = sum(self.weights[name].double().square().sum().item() for name in body)
        self.outcome["metrics"]["relative_change"] = (moved / size) ** 0.5
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.open)
