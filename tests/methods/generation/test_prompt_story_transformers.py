"""The operators on a text encoder of transformers: what a pipeline of diffusers takes as `prompt_embeds`."""

import pytest
import torch

from fisherexp.methods.generation.prompt_story import (
    BOOST,
    DAMP,
    attention_with_identity,
    frame_embeddings,
    places_of,
    reweighted,
)

BEGIN, END, LENGTH = 1, 2, 16
IDENTITY, FRAMES = [10, 11], [[20, 21], [22, 23, 24], [25]]


@pytest.fixture(scope="module")
def encoder():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": 30, "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": END}
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(max_position_embeddings=LENGTH, **sizes, **tokens)
    ).eval()


def tokens_of(*parts):
    words = [BEGIN, *(token for part in parts for token in part)]
    return [*words, *[END] * (LENGTH - len(words))]


@torch.no_grad()
def embedded(encoder, prompt):
    return encoder(torch.tensor([prompt])).last_hidden_state


def test_a_frame_is_what_a_pipeline_is_given(encoder):
    prompt = tokens_of(IDENTITY, *FRAMES)
    whole = embedded(encoder, prompt)
    frames = [places_of(words, prompt) for words in FRAMES]
    ends = range(frames[-1][-1] + 1, LENGTH)
    for wanted, places in enumerate(frames):
        found = frame_embeddings(whole, frames, ends, wanted)
        assert found.shape == whole.shape
        assert found.dtype == whole.dtype
        assert torch.equal(found[:, : frames[0][0]], whole[:, : frames[0][0]])  # begin-of-text and identity
        kept = found[:, places].norm() / whole[:, places].norm()
        others = [at for other in frames if other is not places for at in other]
        assert found[:, others].norm() / whole[:, others].norm() < 0.1 < 0.3 < kept
    # By hand: damped one after the other, the wanted frame boosted at last.
    by_hand = whole.clone()
    for places, strength in ((frames[0], DAMP), (frames[2], DAMP), (frames[1], BOOST)):
        by_hand[:, [*places, *ends]] = reweighted(by_hand[:, [*places, *ends]], strength)
    torch.testing.assert_close(frame_embeddings(whole, frames, ends, 1), by_hand)


def test_in_a_causal_encoder_the_identity_is_the_same_in_every_prompt(encoder):
    """So its copy only adds weight to tokens that cross-attention sees already; a bidirectional encoder differs."""
    alone, whole = (embedded(encoder, tokens_of(*parts)) for parts in ((IDENTITY,), (IDENTITY, *FRAMES)))
    kept = torch.arange(LENGTH) < 1 + len(IDENTITY)
    torch.testing.assert_close(alone[:, kept], whole[:, kept])
    assert (alone[:, ~kept] - whole[:, ~kept]).abs().max() > 0.1
    queries = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    twice = attention_with_identity(queries, whole, whole, alone, alone, kept)
    plain = torch.nn.functional.scaled_dot_product_attention(queries, whole, whole)
    assert (twice - plain).abs().max() > 1e-4
