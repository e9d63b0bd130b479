"""A small generator of pictures from words: a causal text encoder, and a decoder whose patches read the text by
cross-attention. Embeddings lie between the two, where a prompt can be edited."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, scaled_dot_product_attention

from fisherexp.methods.generation.prompt_story import attention_with_identity

HEADS, PATCH = 4, 5


class TextEncoder(nn.Module):
    """Words (n, tokens) to normalized embeddings (n, tokens, width). As in CLIP, a word sees those before it alone."""

    def __init__(self, words: int, tokens: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(0.1 * torch.randn(tokens, width))
        self.layer = nn.TransformerEncoderLayer(width, HEADS, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        later = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        return self.norm(self.layer(self.words(words) + self.positions, src_mask=later, is_causal=True))


class IdentityCopy(NamedTuple):
    """Further tokens of cross-attention, as attention_with_identity takes them. embeddings: (n, tokens, width)."""

    embeddings: Tensor
    kept: Tensor
    unwanted: Literal["masked", "zeroed"]


class Block(nn.Module):
    """Cross-attention and a perceptron, each added to the patches (n, patches, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.out = nn.Linear(width, width), nn.Linear(width, width)
        # Without bias, as in Stable Diffusion: a token of zeros has the key zero and the value zero.
        self.keys, self.values = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, patches: Tensor, text: Tensor, identity: IdentityCopy | None) -> Tensor:
        queries = heads(self.queries(self.norm(patches)))
        keys, values = heads(self.keys(text)), heads(self.values(text))
        if identity is None:
            read = scaled_dot_product_attention(queries, keys, values)
        else:
            copied = heads(self.keys(identity.embeddings)), heads(self.values(identity.embeddings))
            read = attention_with_identity(queries, keys, values, *copied, identity.kept, identity.unwanted)
        patches = patches + self.out(read.transpose(1, 2).flatten(2))
        return patches + self.perceptron(self.second_norm(patches))


def heads(tokens: Tensor) -> Tensor:
    """(n, tokens, width) to (n, heads, tokens, width / heads)."""
    return tokens.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class StoryModel(nn.Module):
    """words: how many there are. tokens: of a prompt. size: of the pictures, in pixels."""

    def __init__(self, words: int, tokens: int, size: int, width: int, blocks: int) -> None:
        super().__init__()
        self.encoder = TextEncoder(words, tokens, width)
        self.side = size // PATCH
        self.patches = nn.Parameter(torch.randn(self.side**2, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm, self.pixels = nn.LayerNorm(width), nn.Linear(width, 3 * PATCH**2)

    def decode(self, text: Tensor, identity: IdentityCopy | None = None) -> Tensor:
        """Embeddings (n, tokens, width) to pictures (n, 3, size, size)."""
        patches = self.patches.expand(len(text), -1, -1)
        for block in self.blocks:
            patches = block(patches, text, identity)
        pixels = self.pixels(self.norm(patches)).mT.unflatten(2, (self.side, self.side))
        return pixel_shuffle(pixels, PATCH)

    def forward(self, words: Tensor) -> Tensor:
        return self.decode(self.encoder(words))
