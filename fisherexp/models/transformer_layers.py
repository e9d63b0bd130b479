"""The layers of a transformer by the names of their projections: attention, and the feed-forward part behind it.

Read are blocks of this project (models/vit.py) and, in transformers, layers of BERT, Llama, Mistral and Qwen 2.
"""

from typing import NamedTuple

from torch import nn

from fisherexp.models.vit import Block

BLOCK = ("attention.query", "attention.key", "attention.value", "attention.out"), ("mlp.0",), "mlp.2"
BERT = (
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    ("intermediate.dense",),
    "output.dense",
)
LLAMA = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj",
)
# Their rotary positions turn channel i with channel i + d / 2; others, as Cohere's, pair neighbours.
ROTARY = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")


class TransformerLayer(NamedTuple):
    """name: of the layer; the others are names of linear layers. Head h has rows h d … (h + 1) d of the query, columns
    of the output, and the key and value of head h // (heads / key_heads).

    rotary: whether positions turn channels i and i + d / 2 of a query and of a key together. up: one layer, or one and
    its gate; empty with down = None where there is no feed-forward part.
    """

    name: str
    query: str
    key: str
    value: str
    output: str
    heads: int
    key_heads: int
    rotary: bool
    up: tuple[str, ...]
    down: str | None

    def names(self) -> tuple[str, ...]:
        """Of its linear layers."""
        return self.query, self.key, self.value, self.output, *self.up, *([self.down] if self.down else [])


def transformer_layers(model: nn.Module) -> list[TransformerLayer]:
    """All of a model in order. Raises ValueError for a model without any."""
    found = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, Block):
            names, heads, rotary = BLOCK, 2 * (module.attention.heads,), False
        elif kind == "BertLayer":
            names, heads, rotary = BERT, 2 * (module.attention.self.num_attention_heads,), False
        elif kind in ROTARY:
            attention = module.self_attn
            heads = tuple(layer.out_features // attention.head_dim for layer in (attention.q_proj, attention.k_proj))
            names, rotary = LLAMA, True
        else:
            continue
        attention, up, down = names
        there = dict(module.named_modules())
        up, down = (up, down) if down in there else ((), None)
        projections = (f"{name}.{part}" for part in attention)
        behind = tuple(f"{name}.{part}" for part in up), f"{name}.{down}" if down else None
        found.append(TransformerLayer(name, *projections, *heads, rotary, *behind))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no transformer layer that is read: this takes vit_tiny, small_vit, char_gpt, "
            "small_gpt, minilm and smollm2"
        )
    return found
