"""Fine-tuning: weights from elsewhere, of which all or a few numbers are trained on.

    min_φ  (1/n) Σ_i  ℓ(f(x_i; θ(φ)), y_i),   θ(φ) = the source's weights at the start

A method says what φ is: everything, the head, or the parameters of adapters, θ(φ) being the weights these make. The
record holds an ordinary model: adapters are merged into the weights at the end. BatchNorm layers that are not trained
keep their statistics, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import AtLeastOne, Pattern, Positive, Probability, Size
from fisherexp.data.batch import Batch
from fisherexp.files import write_atomically, write_json
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.models.eval_mode import eval_mode

HEAD = "head."  # how names of the head's parameters begin, see Classifier


class FineTuning(ERM):
    """A subclass freezes what it does not train (`freeze`).

    finetune: the recipe; epochs=0 leaves the source as it is. head_lr: learning rate of the head, None for that of the
        recipe. Raises ValueError for a rate of a head that is not trained, or that is the token embedding.

    outcome: under "metrics" trained_numbers: of the adapters those that each says it trains (see Adapter.num_trainable;
        of Maestro those that are left), and all that is trained beside them; trained_share, in % of the model's
        numbers; relative_change, ‖θ' - θ‖ / ‖θ‖ over all parameters but the head's, which may be new.
    """

    start = "source"
    headings = {
        "trained_numbers": "trained\nnumbers",
        "trained_share": "trained %",
        "relative_change": "relative\nchange",
    }

    def __init__(self, model: nn.Module, finetune: Recipe, head_lr: Positive | None = None) -> None:
        super().__init__(model, finetune)
        self.head_lr = head_lr
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.before: dict[str, Tensor] = {}  # of what is trained and no adapter
        self.frozen_norms: list[nn.Module] = []

    def freeze(self) -> None:
        """Leave those parameters trainable that are to be trained. As it stands, all are."""

    def merge(self) -> None:
        """Make an ordinary model of what was trained. As it stands, it is one."""

    def source_loaded(self) -> None:
        if not self.epochs:
            return
        self.freeze()
        self.before = {name: p.detach().clone() for name, p in self._own_parameters().items() if p.requires_grad}
        norms = [layer for layer in self.model.modules() if isinstance(layer, _BatchNorm) and layer.affine]
        self.frozen_norms = [layer for layer in norms if not layer.weight.requires_grad]

    def configure_optimizers(self) -> dict[str, Any]:
        head = {p for name, p in self.model.named_parameters() if name.startswith(HEAD)}
        rest, own = [], []
        for group in self.training_recipe.groups_of(self.model):
            rest.append(group | {"params": [p for p in group["params"] if p not in head]})
            own.append(group | {"params": [p for p in group["params"] if p in head]})
        if self.head_lr and not any(group["params"] for group in own):
            raise ValueError(f"method.head_lr={self.head_lr}: no parameter of the head alone is trained; nearest: null")
        own = [group | {"lr": self.head_lr or group["lr"]} for group in own]
        return self.training_recipe.configure_groups([g for g in rest + own if g["params"]], self.steps_per_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        for layer in self.frozen_norms:  # here: whoever evaluates on the way puts all layers back into training
            layer.eval()

    def on_train_end(self) -> None:
        own = self._own_parameters()
        beside = sum(p.numel() for p in own.values() if p.requires_grad)
        trained = beside + adapters.num_trainable(self.model)
        self.outcome["metrics"] = {
            "trained_numbers": trained,
            "trained_share": 100 * trained / sum(p.numel() for p in own.values()),
            "relative_change": self._relative_change(own),
        }
        self.merge()
        for parameter in self.trainable:
            parameter.requires_grad_()

    def _own_parameters(self) -> dict[str, nn.Parameter]:
        """Those of the model without its adapters, by name."""
        of_adapters = {id(p) for adapter in adapters.adapters(self.model) for p in adapter.parameters()}
        return {name: p for name, p in self.model.named_parameters() if id(p) not in of_adapters}

    @torch.no_grad()
    def _relative_change(self, own: Mapping[str, nn.Parameter]) -> float:
        layers = {f"{name}.weight": layer for name, layer in adapters.adapted_layers(self.model).items()}
        moved = size = 0.0
        for name, parameter in own.items():
            if not name.startswith(HEAD):
                before = self.before.get(name, parameter)
                after = layers[name].weight if name in layers else parameter
                moved += (after - before).double().square().sum().item()
                size += before.double().square().sum().item()
        return (moved / size) ** 0.5


class MergedTuning(FineTuning):
    """What is trained beside the weights is merged into them at the end. A subclass says how (`merge_weights`), and
    what is kept of it (`keep`). Left in the run's folder, where the format knows the method: a folder peft.

    outcome: also merge_error, the largest difference that merging makes to the outputs for the last batch, over the
        largest output.
    """

    weighs_samples = True

    def __init__(self, model: nn.Module, finetune: Recipe, head_lr: Positive | None = None) -> None:
        super().__init__(model, finetune, head_lr)
        self.peft_format: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self.last_inputs: Any = None

    def keep(self) -> None:
        """Copy what is to be left in the run's folder."""

    def merge_weights(self) -> None:
        """Write what was trained into the weights; the model is an ordinary one again."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.last_inputs = batch.inputs
        return super().training_step(batch, batch_idx)

    def merge(self) -> None:
        self.keep()
        adapted = self._outputs()
        self.merge_weights()
        difference = (self._outputs() - adapted).abs().max() / adapted.abs().max()
        self.outcome["metrics"]["merge_error"] = difference.item()

    @torch.no_grad()
    def _outputs(self) -> Tensor:
        with eval_mode(self.model):
            return self.model.forward(self.last_inputs)  # past the hook that counts costs

    def leave_files(self, folder: Path) -> None:
        if self.peft_format is not None:
            config, tensors = self.peft_format
            write_json(folder / "peft" / "adapter_config.json", config)
            file = folder / "peft" / "adapter_model.safetensors"
            write_atomically(file, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))


class AdapterTuning(MergedTuning):
    """A subclass makes the adapter of a weight (`adapter`). Left in the run's folder: adapter.safetensors, what was
    trained, as fisherexp.adapters loads it onto the source's weights; where peft knows the method, also a folder peft
    with the same in its format.

    targets: which layers, as fisherexp.adapters has it: a kind ('linear'), a role ('query'), a regular expression, or a
        list of names. exclude: an expression for layers that are left out.
    by_layer: expression -> options of the adapter in the layers it is found in, as {"mlp": {"rank": 8}}.
    rows: expression -> ranges [start, stop) of the rows of W that get an adapter each, the others none: query and value
        of a fused projection. Refused where the class says no to `takes_rows`.
    trained: an expression for parameters that are trained beside the adapters.
    dropout: on the inputs of the update.

    outcome: as of MergedTuning.
    """

    weighs_samples = True
    counts_with = {
        "targets": {"exclude": None, "targets": "^head$"},
        "by_layer": {"by_layer": {"backbone": {"rank": 2}}},
        "rows": {"rows": {"backbone": [[0, 8]]}},
    }
    takes_rows: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        finetune: Recipe,
        targets: Pattern | AtLeastOne[str],
        exclude: Pattern | None = None,
        by_layer: dict[Pattern, dict[str, Any]] | None = None,
        trained: Pattern | None = None,
        dropout: Probability = 0.0,
        head_lr: Positive | None = None,
        rows: dict[Pattern, list[list[Size]]] | None = None,
    ) -> None:
        super().__init__(model, finetune, head_lr)
        if rows and not self.takes_rows:
            raise ValueError(f"rows={rows}: {self.name} adapts whole layers")
        if any(len(span) != 2 for spans in (rows or {}).values() for span in spans):
            raise ValueError(f"rows={rows}: each range has a start and a stop, as in {{c_attn: [[0, 768]]}}")
        self.targets, self.exclude, self.by_layer, self.rows = targets, exclude, by_layer, rows
        self.trained, self.dropout = trained, dropout
        self.adapter_state: dict[str, Tensor] = {}

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        """The adapter of a weight matrix (m, n); options: those of `by_layer`."""
        raise NotImplementedError

    def layers(self) -> list[str]:
        """Names of the layers that get an adapter."""
        return adapters.layer_names(self.model, self.targets, self.exclude)

    def num_adapters(self) -> int:
        """How many these get: one each, or as many as `rows` has ranges."""
        return sum(len(adapters.first_match(self.rows or {}, layer) or [layer]) for layer in self.layers())

    def options_of(self, layer: str) -> dict[str, Any]:
        """What `by_layer` says of it."""
        return dict(adapters.first_match(self.by_layer or {}, layer) or {})

    def freeze(self) -> None:
        chosen = {"exclude": self.exclude, "options": self.by_layer, "trained": self.trained, "dropout": self.dropout}
        adapters.inject(self.model, self.targets, self.adapter, rows=self.rows, **chosen)

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) + adapters.penalty(self.model).to(self.device)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        adapters.after_backward(self.model, self.trainer.global_step, self.epochs * self.steps_per_epoch)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        step = self.trainer.global_step
        super().optimizer_step(*args, **options)
        adapters.after_step(self.model, step, self.epochs * self.steps_per_epoch)

    def keep(self) -> None:
        state = adapters.adapter_state_dict(self.model)
        self.adapter_state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        self.peft_format = adapters.peft_format(self.model)

    def merge_weights(self) -> None:
        adapters.merge(self.model)

    def leave_files(self, folder: Path) -> None:
        if self.adapter_state:
            write_atomically(folder / "adapter.safetensors", lambda temporary: save_file(self.adapter_state, temporary))
        super().leave_files(folder)
