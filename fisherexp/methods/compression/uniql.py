"""UniQL: channels sorted once by what they matter, trained and rounded once, and cut from the end at any rate.

    sort      heads' values and the units of feed-forward layers, outputs as they were; an order of queries' and keys'
              channels, which rotary positions keep in their places       (channel_order.py)
    train     in each step without the channels that a rate, drawn anew, cuts
    round     the whole sorted model, to nearest or column by column
    cut       the least channels of each layer, more of layers that change little:
              φ_l = L φ softmax(-(1 - cos(x_l, y_l)) / ε)_l, at most 0.85

One rounded model serves all rates: a smaller one is a part of a larger one, number for number. The run computes with
zeros where channels are cut, at the speed of the whole model; its file holds what is kept, and a model of that size is
made of it by fisherexp.quantization.cut_to_size.

Paper: arXiv 2512.03383, ICLR 2026. Ours: weights themselves are trained, not adapters; all query heads of a shared key
or value are judged together; λ is relative; cosines are those of all tokens, not of the last; each head loses the same
number of channels, without rounding to 16 or 128; rotary pairs score √(E q_i² + E q_j²) √(E k_i² + E k_j²), which no
rotation changes, where the authors' code adds the two channels' products after the rotation. Not here: Mamba,
Hadamard's rotation, rates for attention and feed-forward apart (the exponents times 1 and 2), kernels for rounded
weights.
"""

import dataclasses
from collections.abc import Mapping
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Bits, Count, Pattern, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.data.composite import Chained
from fisherexp.methods.compression import channel_order
from fisherexp.methods.compression.channel_statistics import ChannelStatistics
from fisherexp.methods.compression.gptq import gptq
from fisherexp.methods.compression.sorted_channels import Places, drawn, kept, places, without
from fisherexp.methods.compression.weight_transform import WeightTransform
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.recipe import Recipe
from fisherexp.models.transformer_layers import TransformerLayer, transformer_layers
from fisherexp.quantization import Integer, Kept, LayerStats, Plain, StoredWeight, matrix
from fisherexp.scenarios.setting import Setting


class UniQL(WeightTransform):
    """rate: share of the channels that is cut, mean over layers before the clamp. by: importance, as above; magnitude,
    of the weights, or random, to compare with: neither turns values. layer_rates: uniform or similarity, of which
    epsilon is the temperature. ridge: λ over the mean square of the units.
    compressor: rtn or gptq, with damping. bits: None for floats of 16 bits; group, grid: see Integer.
    finetune: of all weights of the model between sorting and rounding, with the loss of the data. rates: of which one
    is drawn in each step. samples, exclude, max_width: see WeightTransform; a layer of which one projection is excluded
    stays whole.

    output_error is that of outputs of attention and of feed-forward layers, on inputs that are not cut. Metrics: cut,
    the share of weights that are not kept. Raises ValueError for a model without layers that are read.
    """

    name = "uniql"
    paper = "UniQL, ICLR 2026, arXiv 2512.03383"
    headings = {
        "weight_bits": "weight\nbits",
        "cut": "cut",
        "effective_bits": "bits per\nweight",
        "stored_bytes": "stored\nbytes",
        "output_error": "output\nerror",
        "output_error_max": "largest\nerror",
        "peak_mib": "peak\nMiB",
    }
    counts_with = {
        "exclude": {"exclude": "^backbone.blocks.0"},
        "damping": {"compressor": "gptq"},
        "epsilon": {"layer_rates": "similarity"},
    }

    def __init__(
        self,
        model: nn.Module,
        rate: Probability,
        by: Literal["importance", "magnitude", "random"],
        layer_rates: Literal["uniform", "similarity"],
        epsilon: Positive,
        ridge: Positive,
        compressor: Literal["rtn", "gptq"],
        bits: Bits | None,
        group: Count | None,
        grid: Literal["symmetric_full", "symmetric_restricted", "asymmetric", "mx"],
        damping: Positive,
        finetune: Recipe,
        rates: AtLeastOne[Probability],
        samples: Count,
        exclude: Pattern | None,
        max_width: Count,
    ) -> None:
        super().__init__(model, samples, exclude, max_width)
        taken = set(self.blocks[0])
        self.layers = [layer for layer in transformer_layers(model) if taken.issuperset(layer.names())]
        if not self.layers:
            raise ValueError(f"method.exclude={exclude} leaves no transformer layer of {type(model).__name__} whole")
        self.blocks = 2 * [[name for layer in self.layers for name in layer.names()]]
        self.rate, self.by, self.compressor, self.damping = rate, by, compressor, damping
        self.layer_rates, self.epsilon, self.ridge = layer_rates, epsilon, ridge
        self.bits, self.form = bits, Plain() if bits is None else Integer(bits, group, grid)
        self.finetune, self.rates = finetune, list(rates)
        self.channels = self.new_channels()
        self.pairs: list[Tensor] = []  # by layer, once it is sorted
        self.relative = torch.ones(len(self.layers), dtype=torch.float64)

    @property
    def weight_bits(self) -> int:
        return self.bits or 16

    def new_channels(self) -> ChannelStatistics:
        projections = [name for layer in self.layers for name in (layer.query, layer.key)]
        return ChannelStatistics(self.model, projections, [layer.name for layer in self.layers])

    def batches(self, setting: Setting) -> Chained:
        loaders, lengths = self.to_look_at(dataclasses.replace(setting, rank=0, world_size=1))
        self.look_length = sum(lengths)
        train, epochs = ModelMethod.batches(self, setting), self.finetune.epochs
        self.train_length = len(train)
        lengths = [*lengths, *epochs * [len(train)], *lengths]
        return Chained(*loaders, *epochs * [train], *loaders, lengths=lengths)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        trained = self.look_length + self.finetune.epochs * self.train_length
        if self.look_length <= batch_idx < trained:
            with without(self.model, self.places(), self.shares(drawn(self.rates))):
                self.train_on(batch)
            return
        self.look(batch)
        if batch_idx == self.look_length - 1:
            self.sort()
        elif batch_idx == trained + self.look_length - 1:
            self.edit(0, 1)

    @property
    def looks_at_outputs(self) -> bool:
        return not self.pairs  # for similarities of what goes into blocks and comes out, the last one's as well

    def look(self, batch: Batch) -> None:
        if self.pairs:
            super().look(batch)
            return
        with self.channels.watching(batch.attention_mask):
            super().look(batch)

    @torch.no_grad()
    def sort(self) -> None:
        """Put the channels of all layers in order, and forget what was looked at."""
        if self.layer_rates == "similarity":
            self.relative = channel_order.layer_shares(self.channels.similarity().cpu(), self.epsilon)
        stats = self.collector.stats
        self.pairs = [sort_layer(self.model, layer, stats, self.channels, self.by, self.ridge) for layer in self.layers]
        self.collector, self.channels = None, self.new_channels()

    def places(self) -> dict[str, Places]:
        """Of all matrices of the sorted model."""
        found: dict[str, Places] = {}
        for layer, pairs in zip(self.layers, self.pairs, strict=True):
            size = len(matrix(self.model.get_submodule(layer.query))) // layer.heads
            hidden = matrix(self.model.get_submodule(layer.down)).shape[1] if layer.down else 0
            found |= places(layer, pairs, size, hidden)
        return found

    def shares(self, rate: float) -> dict[str, float]:
        """What is cut of each matrix at a rate."""
        of_layers = zip(self.layers, (rate * self.relative).tolist(), strict=True)
        return {name: share for layer, share in of_layers for name in layer.names()}

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        place, share = self.places()[name], self.shares(self.rate)[name]
        orders = [
            torch.arange(size) if order is None else order
            for order, size in zip((place.rows, place.columns), weight.shape, strict=True)
        ]
        rows, columns = (order.to(weight.device) for order in orders)
        ordered, moment = weight[rows][:, columns], stats.second_moment[columns]
        if self.bits is not None and self.compressor == "gptq":
            parts = gptq(ordered, moment if moment.dim() == 1 else moment[:, columns], self.form, self.damping)
        else:
            parts = self.form.encode(ordered)
        rows, columns = (
            order if given is None else order[: kept(len(order), place.unit, share)]
            for order, given in ((rows, place.rows), (columns, place.columns))
        )
        form = Kept(self.form)
        parts = self.form.first(parts, ordered.shape, len(rows), len(columns))
        return StoredWeight(tuple(weight.shape), form, form.assemble(parts, rows, columns))

    @torch.no_grad()
    def install(self, name: str, stored: StoredWeight) -> None:
        super().install(name, stored)
        bias = self.model.get_submodule(name).bias
        if bias is not None:
            there = torch.zeros_like(bias)
            there[stored.parts["rows"].long()] = 1
            bias.mul_(there)

    def summary(self) -> dict[str, Any]:
        found = super().summary()
        outputs = [name for layer in self.layers for name in (layer.output, layer.down) if name]
        errors = [self.errors[name][0] for name in outputs]
        there = sum(len(each.parts["rows"]) * len(each.parts["columns"]) for each in self.stored.values())
        found["metrics"] |= {"output_error": fmean(errors), "output_error_max": max(errors)}
        found["metrics"]["cut"] = 1 - there / found["weights"]
        del found["metrics"]["rank"], found["metrics"]["activation_bits"]
        return found | {"shares": {layer.name: self.shares(self.rate)[layer.query] for layer in self.layers}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["channels"] = self.channels.state()
        checkpoint["pairs"], checkpoint["relative"] = self.pairs, self.relative

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.channels.load(checkpoint["channels"])
        self.pairs, self.relative = checkpoint["pairs"], checkpoint["relative"]


@torch.no_grad()
def sort_layer(
    model: nn.Module,
    layer: TransformerLayer,
    stats: Mapping[str, LayerStats],
    channels: ChannelStatistics,
    by: str,
    ridge: float,
) -> Tensor:
    """Sort the values and the units of one layer in place; the order (K, p) of its keys' channels, or pairs of them.

    stats: of the inputs of `value` and `down`. channels: of the outputs of `query` and `key`.
    """
    query, key, value, output = (model.get_submodule(name) for name in layer.names()[:4])
    channel_order.fold_value_bias(value, output, layer.heads, layer.key_heads)
    if by == "importance":
        moment = stats[layer.value].second_moment
        channel_order.rotate_values(value, output, layer.heads, layer.key_heads, moment)
        squares = channels.mean_square(layer.query), channels.mean_square(layer.key)
    else:
        squares = matrix(query).square().sum(1), matrix(key).square().sum(1)
        of_values = matrix(value).square().sum(1).unflatten(0, (layer.key_heads, -1))
        of_outputs = matrix(output).square().sum(0).unflatten(0, (layer.key_heads, -1, of_values.shape[1])).sum(1)
        scores = of_values * of_outputs
        order = _falling(torch.rand_like(scores) if by == "random" else scores)
        channel_order.permute_values(value, output, layer.heads, order)
    pairs = channel_order.pair_scores(
        squares[0].unflatten(0, (layer.heads, -1)), squares[1].unflatten(0, (layer.key_heads, -1)), layer.rotary
    )
    if layer.down:
        ups, down = [model.get_submodule(name) for name in layer.up], model.get_submodule(layer.down)
        if by == "importance":
            units = channel_order.ridge_leverage(stats[layer.down].second_moment, ridge)
        else:
            units = matrix(down).square().sum(0) * torch.stack([matrix(up).square().sum(1) for up in ups]).prod(0)
        channel_order.permute_hidden(ups, down, _falling(torch.rand_like(units) if by == "random" else units))
    return _falling(torch.rand_like(pairs) if by == "random" else pairs).cpu()


def _falling(scores: Tensor) -> Tensor:
    return scores.argsort(dim=-1, descending=True, stable=True)
