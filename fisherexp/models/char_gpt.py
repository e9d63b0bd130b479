"""A small decoder-only transformer (Radford et al. 2019, "GPT-2") for short vocabularies such as characters."""

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Probability
from fisherexp.models.backbone import Backbone
from fisherexp.models.vit import Block


class CharGPT(Backbone):
    """Token and position embeddings → pre-norm blocks of causal attention and MLP → norm; one feature per position.

    dim, depth, heads: of the transformer; heads must divide dim. dropout: of embeddings and both branches of a block.
    tied: the head's weight is the token embedding (Press, Wolf 2017, arXiv 1608.05859), and the head has no bias.
    input_shape: (T,), the longest sequence. vocabulary: number V of tokens.
    """

    requires = ("tokens",)

    def __init__(
        self,
        dim: Count = 128,
        depth: Count = 2,
        heads: Count = 4,
        dropout: Probability = 0.0,
        tied: bool = True,
        *,
        input_shape: tuple[int],
        vocabulary: int,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.num_features, self.tied = dim, tied
        self.tokens = nn.Embedding(vocabulary, dim)
        self.positions = nn.Embedding(*input_shape, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*[Block(dim, heads, dropout, causal=True) for _ in range(depth)])
        self.stage_ends = [f"blocks.{number}" for number in range(depth)]
        self.norm = nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:  # 2·depth branches add up in the residual stream
            for projection in (block.attention.out, block.mlp[-1]):
                nn.init.normal_(projection.weight, std=0.02 / (2 * depth) ** 0.5)

    def initialize(self, head: nn.Linear) -> None:
        """Tie the head to the embedding, or give it weights of its own to begin with."""
        if self.tied:
            head.weight, head.bias = self.tokens.weight, None
        else:
            nn.init.normal_(head.weight, std=0.02)
            if head.bias is not None:
                nn.init.zeros_(head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (B, t, d) of tokens (B, t), t at most T."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.norm(self.blocks(self.dropout(self.tokens(tokens) + self.positions(places))))
