"""Passes from block to block give what whole passes give, and are made where blocks form a chain."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.weight_transform import in_blocks
from fisherexp.quantization import BlockByBlock, Collector

BLOCKS, BATCHES = 4, 3


class Block(nn.Module):
    """What it returns is told by what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)
        self.calls = 0

    def forward(self, x, scale=None, *, shift=None, cache=None):
        self.calls += 1
        made = self.up(x if scale is None else x * scale)
        return x + self.down(torch.tanh(made if shift is None else made + shift[0]))


class Chain(nn.Module):
    """Blocks after each other, on one scale and one shift; how a subclass joins them is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = (
            nn.Linear(5, 6),
            nn.ModuleList(Block() for _ in range(BLOCKS)),
            nn.Linear(6, 2),
        )

    def forward(self, x):
        scale, shift, x = x[:, :1].exp(), (x[:, 1:2], 0.5), self.embed(x)
        for number in range(BLOCKS):
            x = self.join(number, x, scale, shift)
        return self.head(x)

    def join(self, number, x, scale, shift):
        return self.blocks[number](x, scale, shift=shift)


class Tuples(Chain):
    def join(self, number, x, scale, shift):
        return super().join(number, x, scale, shift)[0]


class TupleBlock(Block):
    def forward(self, x, scale=None, *, shift=None, cache=None):
        return super().forward(x, scale, shift=shift), None


class Between(Chain):
    def join(self, number, x, scale, shift):
        return super().join(number, x.relu() if number == 2 else x, scale, shift)


class OwnScales(Chain):
    def join(self, number, x, scale, shift):
        return super().join(number, x, scale * (1 + number // 2), shift)


class Kept(Chain):
    def join(self, number, x, scale, shift):
        return self.blocks[number](x, scale, shift=shift, cache={})


class Named(Chain):
    def join(self, number, x, scale, shift):
        return self.blocks[number](x=x, scale=scale, shift=shift)


class Twice(Chain):
    def join(self, number, x, scale, shift):
        x = super().join(number, x, scale, shift)
        return super().join(number, x, scale, shift) if number == 1 else x


class Outside(Chain):
    """A layer of a block is called without the block."""

    def join(self, number, x, scale, shift):
        found = super().join(number, x, scale, shift)
        self.blocks[1].up(x)
        return found


class Skipped(Chain):
    """Only for some inputs."""

    def join(self, number, x, scale, shift):
        return x if number == 2 and scale[0] > 1 else super().join(number, x, scale, shift)


class Changing(Block):
    def forward(self, x, scale=None, *, shift=None, cache=None):
        return super().forward(x.mul_(0.9), scale, shift=shift)


def looked_at(model, passes, batches, seed=1):
    """The sums of every block's inputs, each block changed after it was looked at, and the calls of the first."""
    torch.manual_seed(seed)
    found = []
    for look in range(BLOCKS):
        names = [f"blocks.{look}.up", f"blocks.{look}.down"]
        collector = Collector(model, names, max_width=8, whole=look == 0)
        for number, batch in enumerate(batches):
            collector.look(batch, run=passes and (lambda x, k=look, i=number: passes.run(k, i, x)))
        found.append([collector.stats[name].products for name in names])
        for parameter in model.blocks[look].parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return found, model.blocks[0].calls


def of(kind, block=Block):
    torch.manual_seed(0)
    model = kind()
    model.blocks = nn.ModuleList(block() for _ in range(BLOCKS))
    return model.requires_grad_(False)


def passes_of(model):
    return BlockByBlock(model, {f"blocks.{k}": [f"blocks.{k}.up", f"blocks.{k}.down"] for k in range(BLOCKS)})


# The first block is called for its own look and once more, changed, where the second begins; from the start, for each.
FROM_BLOCK, FROM_START = 2, BLOCKS


@pytest.mark.parametrize(
    ("kind", "block", "calls"),
    [
        (Chain, Block, FROM_BLOCK),
        (Tuples, TupleBlock, FROM_BLOCK),
        (Between, Block, FROM_BLOCK + 1),  # for one look from the start
        (OwnScales, Block, FROM_START),
        (Kept, Block, FROM_START),
        (Named, Block, FROM_START),
        (Twice, Block, FROM_BLOCK + 1),
        (Outside, Block, FROM_BLOCK + 1),
        (Chain, Changing, FROM_START),
    ],
)
def test_sums_are_those_of_whole_passes(kind, block, calls):
    batches = [torch.randn(7, 5, generator=torch.Generator().manual_seed(n)) for n in range(BATCHES)]
    wanted, whole = looked_at(of(kind, block), None, batches)
    assert whole == BLOCKS * BATCHES
    model = of(kind, block)
    found, made = looked_at(model, passes_of(model), batches)
    assert made == calls * BATCHES
    for one, other in zip(found, wanted, strict=True):
        assert all(map(torch.equal, one, other))


def test_each_batch_goes_as_it_was_seen_to():
    """Where the blocks of one batch form a chain and those of another do not."""
    positive, negative = (sign * torch.ones(7, 5) for sign in (1, -1))
    model = of(Skipped)
    batches = [positive, negative, positive]
    wanted, _ = looked_at(of(Skipped), None, batches)
    passes = passes_of(model)
    found, _ = looked_at(model, passes, batches)
    assert passes.links == {0: [True, False, False, False], 1: [True, True, True, False], 2: passes.links[0]}
    for one, other in zip(found, wanted, strict=True):
        assert all(map(torch.equal, one, other))


def test_inputs_are_kept_only_where_the_next_block_goes_on_from_them():
    batch, model = torch.randn(7, 5), of(Between)
    passes, held = passes_of(model), []
    for look in range(BLOCKS):
        passes.run(look, 0, batch)
        held.append(passes.num_bytes)
    hidden, scale, shift = 4 * 7 * 6, 4 * 7, 4 * 7 * 5  # of a view all that it is a view of
    assert held == [hidden + scale + shift, 0, hidden + scale + shift, 0]


class Stopping(BlockByBlock):
    def run(self, block, batch, inputs):
        if block == 2:
            self.calls.pop(batch)
        super().run(block, batch, inputs)


def test_without_what_was_kept_passes_begin_at_the_start():
    """As after a stop, of which the links alone are left."""
    batches = [torch.randn(7, 5) for _ in range(BATCHES)]
    wanted, _ = looked_at(of(Chain), None, batches)
    model = of(Chain)
    passes = Stopping(model, passes_of(model).blocks)
    found, calls = looked_at(model, passes, batches)
    assert calls == (FROM_BLOCK + 1) * BATCHES
    for one, other in zip(found, wanted, strict=True):
        assert all(map(torch.equal, one, other))


class OfTokens(nn.Module):
    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(**inputs)


SIZES = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"max_position_embeddings": 16, "pad_token_id": 0, "use_cache": False}
CHAIN = [True, True, True, False]


@pytest.mark.parametrize(
    ("kind", "options", "links"),
    [
        ("LlamaConfig", {"num_key_value_heads": 1}, CHAIN),
        ("LlamaConfig", {"use_cache": True}, [False] * 4),
        ("BertConfig", {}, CHAIN),
        ("OPTConfig", {"ffn_dim": 24, "word_embed_proj_dim": 16}, CHAIN),
        # layers with a window and without have masks of their own
        ("Gemma2Config", {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4}, [False] * 4),
    ],
)
def test_layers_of_transformers(kind, options, links):
    """Sums of all layers, of padded texts, are those of whole passes."""
    transformers = pytest.importorskip("transformers")

    def found(in_order):
        torch.manual_seed(0)
        network = transformers.AutoModel.from_config(getattr(transformers, kind)(**SIZES | options))
        model = OfTokens(network).eval().requires_grad_(False)
        names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and "pooler" not in name]
        blocks = in_blocks(names)
        passes, sums, called = BlockByBlock(model, blocks), {}, [0]
        model.get_submodule(next(iter(blocks))).register_forward_pre_hook(lambda *_: called.append(called.pop() + 1))
        torch.manual_seed(1)
        batches = []
        for length in (9, 5):
            mask = torch.ones(3, length, dtype=torch.long)
            mask[0, 3:] = 0
            batches.append({"input_ids": torch.randint(1, 20, (3, length)), "attention_mask": mask})
        for look, (block, layers) in enumerate(blocks.items()):
            collector = Collector(model, layers, max_width=24, whole=look == 0)
            for number, batch in enumerate(batches):
                run = (lambda inputs, k=look, i=number: passes.run(k, i, inputs)) if in_order else None
                collector.look(batch, batch["attention_mask"], run)
            sums |= {name: stats.products for name, stats in collector.stats.items()}
            for parameter in model.get_submodule(block).parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
        return sums, called[0], list(passes.links.values())

    (wanted, all_calls, _), (sums, calls, linked) = found(False), found(True)
    assert linked == 2 * [links]
    assert (all_calls, calls) == (4 * 2, (2 if any(links) else 4) * 2)
    assert sums.keys() == wanted.keys()
    assert all(torch.equal(sums[name], wanted[name]) for name in wanted)
