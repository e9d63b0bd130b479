"""The three operators in a pipeline of diffusers with random weights: one prompt, reweighted embeddings, the identity's
copy in cross-attention."""

import math

import pytest
import torch

from fisherexp.methods.generation.prompt_story import attention_with_identity, frame_embeddings, places_of
from fisherexp.methods.generation.story_model import IdentityCopy
from fisherexp.methods.generation.story_pipeline import IdentityAttention, read_identity

BEGIN, END, LENGTH, WIDTH = 1, 2, 16, 32
IDENTITY, FRAMES = [10, 11], [[20, 21], [22, 23, 24], [25]]
KEPT = torch.arange(LENGTH) < 1 + len(IDENTITY)


@pytest.fixture(scope="module")
def pipeline():
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=30,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=END,
        max_position_embeddings=LENGTH,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    made = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=None,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
def embedded(pipeline, *parts):
    words = [BEGIN, *(token for part in parts for token in part)]
    prompt = [*words, *[END] * (LENGTH - len(words))]
    return prompt, pipeline.text_encoder(torch.tensor([prompt])).last_hidden_state


def frames_of(pipeline):
    prompt, whole = embedded(pipeline, IDENTITY, *FRAMES)
    places = [places_of(words, prompt) for words in FRAMES]
    ends = range(places[-1][-1] + 1, LENGTH)
    return whole, [frame_embeddings(whole, places, ends, wanted) for wanted in range(len(FRAMES))]


def drawn(pipeline, text, guidance=5.0):
    draw = torch.Generator().manual_seed(0)
    empty = embedded(pipeline)[1]
    result = pipeline(
        prompt_embeds=text,
        negative_prompt_embeds=empty,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=draw,
        output_type="latent",
    )
    return result.images


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_pipeline_tells_the_frames_with_the_identitys_copy(pipeline, guidance):
    whole, frames = frames_of(pipeline)
    plain = [drawn(pipeline, text, guidance) for text in (whole, *frames)]
    assert all(part.isfinite().all() for part in plain)
    assert all((one - plain[0]).abs().max() > 1e-4 for one in plain[1:])  # consolidated, then reweighted
    alone = embedded(pipeline, IDENTITY)[1]
    before = pipeline.unet.attn_processors
    try:
        read_identity(pipeline.unet, IdentityCopy(alone, KEPT, "masked"), guidance > 1)
        told = [drawn(pipeline, text, guidance) for text in frames]
        read_identity(pipeline.unet, IdentityCopy(alone, torch.zeros_like(KEPT), "masked"), guidance > 1)
        control = [drawn(pipeline, text, guidance) for text in frames]
    finally:
        pipeline.unet.set_attn_processor(before)
    for one, without, masked in zip(told, plain[1:], control, strict=True):
        assert (one - without).abs().max() > 1e-4
        torch.testing.assert_close(masked, without, rtol=1e-4, atol=1e-5)  # of nothing, the copy changes nothing


@pytest.mark.parametrize("unwanted", ["masked", "zeroed"])
@torch.no_grad()
def test_only_the_conditional_half_reads_the_copy(pipeline, unwanted):
    layer = next(part for name, part in pipeline.unet.named_modules() if name.endswith("attn2"))
    draw = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 9, layer.to_q.in_features, generator=draw)
    text = torch.cat([embedded(pipeline)[1], embedded(pipeline, IDENTITY, *FRAMES)[1]])
    alone = embedded(pipeline, IDENTITY)[1]
    found = IdentityAttention(IdentityCopy(alone, KEPT, unwanted))(layer, patches, text)
    plain = layer(patches, text)
    torch.testing.assert_close(found[0], plain[0], rtol=1e-5, atol=1e-6)
    assert (found[1] - plain[1]).abs().max() > 1e-4

    def heads(tokens):
        return tokens.reshape(-1, layer.heads, tokens.shape[-1] // layer.heads).transpose(0, 1)

    inside = (heads(part) for part in (layer.to_q(patches[1]), layer.to_k(text[1]), layer.to_v(text[1])))
    own = (heads(part) for part in (layer.to_k(alone[0]), layer.to_v(alone[0])))
    by_hand = attention_with_identity(*inside, *own, KEPT, unwanted).transpose(0, 1).reshape(9, -1)
    torch.testing.assert_close(found[1], layer.to_out[0](by_hand), rtol=1e-5, atol=1e-6)


def test_what_it_cannot_read_is_refused(pipeline):
    layer = next(part for name, part in pipeline.unet.named_modules() if name.endswith("attn2"))
    read = IdentityAttention(IdentityCopy(torch.zeros(1, LENGTH, WIDTH), KEPT, "masked"))
    with pytest.raises(ValueError, match="without a mask"):
        read(layer, torch.zeros(2, 9, 16), torch.zeros(2, LENGTH, WIDTH), torch.full((2, 1, LENGTH), -math.inf))
