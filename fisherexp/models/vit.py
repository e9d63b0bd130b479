"""Vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), by default DeiT-Ti (arXiv 2012.12877)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fisherexp.config.types import Count, Probability
from fisherexp.models.backbone import Backbone


class ViT(Backbone):
    """Patches → tokens, a class token, learned positions → pre-norm transformer → the class token; d = dim.

    patch: side of a patch in pixels; must divide H and W.
    dim, depth, heads: of the transformer; heads must divide dim.
    dropout: of both branches of each block. input_shape: (C, H, W).
    """

    name = "vit_tiny"

    def __init__(
        self,
        patch: Count = 4,
        dim: Count = 192,
        depth: Count = 12,
        heads: Count = 3,
        dropout: Probability = 0.0,
        *,
        input_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        if height % patch or width % patch:
            raise ValueError(f"patch={patch} does not divide the image size {height}×{width}")
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.num_features = dim
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (height // patch) * (width // patch), dim))
        self.blocks = nn.Sequential(*[Block(dim, heads, dropout) for _ in range(depth)])
        self.stage_ends = [f"blocks.{number}" for number in range(depth)]
        self.norm = nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W)."""
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1) + self.positions
        return self.norm(self.blocks(tokens)[:, 0])


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) four times as wide, with GELU. Tokens (B, T, dim).

    causal: a token attends to those before it and itself only.
    """

    def __init__(self, dim: int, heads: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Multi-head self-attention on tokens (B, T, dim).

    Query, key and value are separate Linear layers, not one fused projection: what is known about a Linear
    layer (its Fisher, its Kronecker factors, a low-rank update) then holds for each of them.
    """

    def __init__(self, dim: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, dim) → (B, heads, T, dim / heads)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
