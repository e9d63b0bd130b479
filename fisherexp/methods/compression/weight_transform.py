"""Weights stored in less, layer by layer, without training: what all such methods share.

A pass over calibration samples sums up what the inputs of each layer are like (fisherexp/quantization/statistics.py);
each weight is then exchanged for what its stored form decodes to, and the run's folder keeps the stored form itself
(quantized.safetensors). In order (`sequential`), the layers of one block after those of another, each block with a pass
of its own through the model as compressed so far, but before any layer of the block itself is: layers within a block do
not see each other's change (as in GPTQ's, SparseGPT's, Wanda's and EoRA's code). In a chain of blocks that pass begins
where the last one ended (fisherexp/quantization/block_by_block.py). Otherwise all are judged in the untouched model
(QERA).

The output error of a layer is √(E‖(W - Ŵ) x‖² / E‖W x‖²) over the inputs x that it was given in calibration; where
inputs are rounded, too, it counts that, over the rows that were kept (`keep`).

The peak is that of tensors alive while layers are compressed, what was summed up in calibration with it and the inputs
of a block, the model without: unlike the memory of the process the same in every run (fisherexp.metrics.live_memory).
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.adapters import layer_names
from fisherexp.config.types import Count, Pattern
from fisherexp.data.batch import Batch
from fisherexp.files import write_atomically
from fisherexp.methods.compression.calibrate_and_train import CalibrateAndTrain
from fisherexp.methods.recipe import Recipe
from fisherexp.metrics.live_memory import LiveMemory
from fisherexp.models.eval_mode import eval_mode
from fisherexp.quantization import (
    BlockByBlock,
    Collector,
    Factored,
    LayerStats,
    StoredWeight,
    apply_factored,
    is_matrix,
    matrix,
    save,
    set_matrix,
)
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import generator

FLOAT_BITS = 32  # of activations that are not rounded


class WeightTransform(CalibrateAndTrain):
    """A method says what is stored of a weight, given the statistics of its inputs (`compress`).

    samples: for calibration, drawn from the training part; all of it where that has fewer.
    exclude: pattern of names of layers that stay; of the others all linear layers and plain convolutions are taken.
    max_width: layers with more inputs than this have the diagonal of their second moment alone.

    activation_bits, activation_group: of a subclass that rounds inputs of layers, too. keep: input rows that `compress`
    finds in the statistics.
    """

    start = "source"
    activation_bits: int | None = None
    activation_group: int | None = None
    keep: int = 0
    looks_at_outputs = False  # whether a look needs whole passes through the model
    headings = {
        "weight_bits": "weight\nbits",
        "activation_bits": "act.\nbits",
        "rank": "rank",
        "effective_bits": "bits per\nweight",
        "stored_bytes": "stored\nbytes",
        "output_error": "output\nerror",
        "output_error_max": "largest\nerror",
        "peak_mib": "peak\nMiB",
    }
    better = {
        "effective_bits": "lower",
        "stored_bytes": "lower",
        "output_error": "lower",
        "output_error_max": "lower",
        "peak_mib": "lower",
    }
    counts_with = {"max_width": {"max_width": 8}, "sequential": {"/model.hidden": [12, 12]}}

    def __init__(
        self,
        model: nn.Module,
        samples: Count,
        exclude: Pattern | None,
        max_width: Count,
        sequential: bool = False,
    ) -> None:
        names = layer_names(model, lambda name, layer: is_matrix(layer), exclude)
        refuse_shared(model, names)
        blocks = in_blocks(names) if sequential else {"": names}
        self.blocks = list(blocks.values())
        super().__init__(model, Recipe(epochs=0), looks=len(self.blocks))
        self.passes = BlockByBlock(model, blocks) if sequential else None
        self.samples, self.max_width = samples, max_width
        self.stored: dict[str, StoredWeight] = {}
        self.errors: dict[str, tuple[float, float]] = {}
        self.diagonal: list[str] = []
        self.peak = 0  # bytes
        self.collector: Collector | None = None
        self.drawn = 0
        self._restored: dict[str, Any] | None = None

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        """What is stored of a layer's weight (n, m), float64."""
        raise NotImplementedError

    @property
    def weight_bits(self) -> int:
        """Of a weight that is kept, whatever is stored beside it."""
        raise NotImplementedError

    def to_look_at(self, setting: Setting) -> tuple[list[Any], list[int]]:
        part = setting.parts["train"]
        order = torch.randperm(len(part), generator=generator("calibration", setting.seed))[: self.samples]
        loader = setting.loader_of(part.subset(order), shuffle=False, batch_size=setting.data.batch_size)
        self.drawn = len(order)
        return [loader], [len(loader)]

    def on_train_start(self) -> None:
        for name, stored in self.stored.items():
            self.install(name, stored)
        if self._restored is not None:
            self.watch(self.due).load(self._restored)

    @property
    def due(self) -> int:
        """The number of the look that is due: so many blocks are compressed."""
        return sum(name in self.stored for name, *_ in self.blocks)

    def watch(self, look: int) -> Collector:
        # In order, the passes for the first block go to the end, to see how the blocks are called.
        whole = self.looks_at_outputs or (self.passes is not None and look == 0)
        self.collector = Collector(self.model, self.blocks[look], self.max_width, self.keep, whole)
        return self.collector

    def look(self, batch: Batch) -> None:
        collector = self.collector or self.watch(self.due)
        run = None if self.passes is None else partial(self.passes.run, self.due, self.position)
        with eval_mode(self.model):
            collector.look(batch.inputs, batch.attention_mask, run)

    @torch.no_grad()
    def edit(self, step: int, look: int) -> None:
        stats, self.diagonal = self.collector.stats, self.diagonal + self.collector.diagonal
        if uncalled := [name for name in self.blocks[look] if name not in stats]:
            raise ValueError(f"the model never calls {', '.join(uncalled)}: leave out by method.exclude")
        if wild := [name for name in self.blocks[look] if not stats[name].largest.isfinite().all()]:
            raise ValueError(f"inputs of {wild[0]} are not all finite: there is nothing to judge its weight by")
        found = {}
        with LiveMemory() as memory:
            for name in self.blocks[look]:
                weight = matrix(self.model.get_submodule(name)).double().clone()
                found[name] = self.compress(name, weight, stats[name])
                self.errors[name] = self.errors_of(weight, found[name], stats[name])
        summed = self.collector.num_bytes + (0 if self.passes is None else self.passes.num_bytes)
        self.peak = max(self.peak, summed + memory.peak)
        for name, stored in found.items():
            self.install(name, stored)
        self.stored |= found
        self.collector = None
        self.outcome = self.summary()

    def errors_of(self, weight: Tensor, stored: StoredWeight, stats: LayerStats) -> tuple[float, float]:
        """Of one layer, relative: of its outputs and of its weight."""
        lost = (weight - stored.weight()).norm() / weight.norm().clamp_min(1e-300)
        return self.output_error(weight, stored, stats), lost.item()

    def output_error(self, weight: Tensor, stored: StoredWeight, stats: LayerStats) -> float:
        """Of one layer, relative; 0 where it has no outputs to lose."""
        if self.activation_bits is None:
            squares = stats.squared_output(weight - stored.weight()), stats.squared_output(weight)
        else:
            rows, wanted = stats.rows.to(weight), stats.rows.to(weight) @ weight.T
            more = (None if each is None else each.to(weight) for each in (stored.up, stored.down, stored.smooth))
            made = apply_factored(rows, stored.quantized(), *more, self.activation_bits, self.activation_group)
            squares = (made - wanted).square().sum(), wanted.square().sum()
        return (squares[0] / squares[1]).sqrt().item() if squares[1] else 0.0

    def install(self, name: str, stored: StoredWeight) -> None:
        """Have the layer compute with what is stored."""
        layer = self.model.get_submodule(name)
        if self.activation_bits is None:
            set_matrix(layer, stored.weight())
        elif not isinstance(layer, Factored):
            factored = Factored(layer, stored, self.activation_bits, self.activation_group)
            self.model.set_submodule(name, factored)

    def summary(self) -> dict[str, Any]:
        """The outcome."""
        weights = sum(stored.shape[0] * stored.shape[1] for stored in self.stored.values())
        stored_bytes = sum(stored.num_bytes for stored in self.stored.values())
        output_errors = [error for error, _ in self.errors.values()]
        layers = {
            name: {"rank": stored.rank, "bytes": stored.num_bytes, "output_error": output, "weight_error": of_weight}
            for (name, stored), (output, of_weight) in zip(self.stored.items(), self.errors.values(), strict=True)
        }
        metrics = {
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits or FLOAT_BITS,
            "rank": max(stored.rank for stored in self.stored.values()),
            "effective_bits": 8 * stored_bytes / weights,
            "stored_bytes": stored_bytes,
            "output_error": fmean(output_errors),
            "output_error_max": max(output_errors),
            "peak_mib": self.peak / 2**20,
        }
        about = {"weights": weights, "samples": self.drawn, "diagonal": self.diagonal}
        return {**about, "layers": layers, "metrics": metrics}

    def leave_files(self, folder: Path) -> None:
        write_atomically(folder / "quantized.safetensors", lambda temporary: save(self.stored, temporary))
        if self.diagonal:
            wide = f"more than method.max_width={self.max_width} inputs, judged by their diagonal alone"
            print(f"{wide}: {', '.join(self.diagonal)}", file=sys.stderr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["stored"] = {name: (stored.tensors(), stored.about()) for name, stored in self.stored.items()}
        checkpoint["errors"], checkpoint["diagonal"], checkpoint["peak"] = self.errors, self.diagonal, self.peak
        checkpoint["sums"] = None if self.collector is None else self.collector.state()
        checkpoint["links"] = None if self.passes is None else self.passes.links
        checkpoint["compression"] = self.outcome

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.stored = {name: StoredWeight.of(*stored) for name, stored in checkpoint["stored"].items()}
        self.errors, self.diagonal, self.peak = (checkpoint[name] for name in ("errors", "diagonal", "peak"))
        self._restored, self.outcome = checkpoint["sums"], checkpoint["compression"]
        if self.passes is not None:
            self.passes.links = checkpoint["links"]


def halved(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Factors as they are stored, in 16 bits."""
    return up.half(), down.half()


def in_blocks(names: list[str]) -> dict[str, list[str]]:
    """Names in their order, those together that agree up to the first number in them ("blocks.3.mlp.0": "blocks.3")."""
    block = re.compile(r"(?:.*?\.)?\d+(?=\.|$)")
    return {of: list(some) for of, some in groupby(names, lambda name: (block.match(name) or [name])[0])}


def refuse_shared(model: nn.Module, names: list[str]) -> None:
    """Raises ValueError for layers whose weight another module has as well: both would change."""
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    if tied := [name for name in names if owners[id(model.get_submodule(name).weight)] > 1]:
        raise ValueError(f"{', '.join(tied)}: the weight is another module's as well, leave it out by method.exclude")


def refuse_convolutions(model: nn.Module, names: Iterable[str]) -> None:
    """Raises ValueError for convolutions, of which fisherexp/quantization/factored.py knows nothing."""
    if found := [name for name in names if isinstance(model.get_submodule(name), nn.Conv2d)]:
        raise ValueError(
            f"{', '.join(found)}: activations are rounded before linear layers alone, leave convolutions out by "
            "method.exclude"
        )
