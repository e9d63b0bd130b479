"""A decoder of attention alone, whose heads talk to each other and to nobody else (Elhage et al. 2021)."""

from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.vit import Block

EMBEDDING_SCALE = 0.3


class AttentionBlock(Block):
    """x + attention(norm(x)) of tokens (B, T, dim), causal."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads, 0.0, causal=True)
        del self.norm2, self.mlp, self.dropout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm1(x))


class AttentionOnly(CharGPT):
    """CharGPT without its feed-forward layers, with a head of its own. Options: see CharGPT.

    Linear layers begin with torch's weights: from GPT-2's small ones, heads that look up what came next take several
    times as many steps to form.
    """

    def __init__(
        self, dim: Count = 64, depth: Count = 2, heads: Count = 4, *, input_shape: tuple[int], vocabulary: int
    ) -> None:
        super().__init__(dim, depth, heads, tied=False, input_shape=input_shape, vocabulary=vocabulary)
        self.blocks = nn.Sequential(*[AttentionBlock(dim, heads) for _ in range(depth)])
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=EMBEDDING_SCALE)

    def initialize(self, head: nn.Linear) -> None:
        """The head begins as torch's linear layers do, too."""
