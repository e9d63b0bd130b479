"""The identity's copy in a pipeline of diffusers: an attention processor for the cross-attention of its U-Net.

A pipeline takes the embeddings of `frame_embeddings` as `prompt_embeds`; what is left of One-Prompt-One-Story (Liu et
al., ICLR 2025, arXiv 2501.13554) are the keys and values of the identity prompt, which each layer computes with its own
weights. As in the released code only the conditional half of a batch with guidance reads them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fisherexp.methods.generation.prompt_story import attention_with_identity
from fisherexp.methods.generation.story_model import IdentityCopy


class IdentityAttention:
    """A processor of diffusers' Attention, for layers whose tokens are (batch, tokens, d) as in transformer blocks.

    identity: of one prompt, embeddings (1, tokens, d). guided: the first half of a batch is unconditional. Raises
    ValueError for an attention mask, and for images that were not made tokens before.
    """

    def __init__(self, identity: IdentityCopy, guided: bool = True) -> None:
        self.identity, self.guided = identity, guided

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None or hidden_states.ndim != 3:
            raise ValueError("the identity's copy is for cross-attention of tokens (batch, tokens, d) without a mask")

        def heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        queries = heads(attn.to_q(hidden_states))
        keys, values = heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states))
        copy = self.identity.embeddings.to(encoder_hidden_states)
        own = heads(attn.to_k(copy)), heads(attn.to_v(copy))
        free = len(queries) // 2 if self.guided else 0
        asked = [part[free:] for part in (queries, keys, values)]
        own = [part.expand(len(asked[0]), -1, -1, -1) for part in own]
        kept = self.identity.kept.to(queries.device)
        read = attention_with_identity(*asked, *own, kept, self.identity.unwanted)
        plain = scaled_dot_product_attention(queries[:free], keys[:free], values[:free])
        found = torch.cat([plain, read]).transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            found = layer(found)
        return found


def read_identity(unet: nn.Module, identity: IdentityCopy, guided: bool = True) -> dict[str, Any]:
    """Let all cross-attention (`attn2`) of a U-Net of diffusers read the copy. guided: guidance_scale is above 1.

    Returns the processors that were there, for `unet.set_attn_processor`.
    """
    reader = IdentityAttention(identity, guided)
    processors = unet.attn_processors
    unet.set_attn_processor({name: reader if "attn2" in name else old for name, old in processors.items()})
    return processors
