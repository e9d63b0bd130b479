"""The operators on prompts: identities, singular vectors, order, and what masking differs from zeros by."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fisherexp.methods.generation.prompt_story import (
    BOOST,
    DAMP,
    Strength,
    attention_with_identity,
    frame_embeddings,
    places_of,
    reweighted,
    windows,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PROMPT = drawn(10, 16)
FRAMES, ENDS = [[2, 3], [4, 5, 6]], [7, 8, 9]


def test_no_strength_changes_nothing():
    torch.testing.assert_close(reweighted(PROMPT, Strength(0, 1)), PROMPT)
    same = frame_embeddings(PROMPT, FRAMES, ENDS, 0, Strength(0, 1), Strength(0, 1))
    torch.testing.assert_close(same, PROMPT)
    single = PROMPT.float()
    assert reweighted(single, BOOST).dtype == torch.float32


@pytest.mark.parametrize("strength", [BOOST, DAMP, Strength(0.1, 0.5)])
def test_singular_values_change_and_vectors_stay(strength):
    left, values, _ = torch.linalg.svd(PROMPT, full_matrices=False)
    found = reweighted(PROMPT, strength)
    expected = strength.beta * (strength.alpha * values).exp() * values
    projected = left.mT @ found  # rows: σ' times right vectors
    torch.testing.assert_close(projected.norm(dim=1), expected)
    torch.testing.assert_close(projected @ projected.mT, expected.square().diag(), rtol=0, atol=1e-10)


def test_damping_to_nothing_erases_and_more_tokens_than_dimensions_are_refused():
    assert reweighted(PROMPT, Strength(-0.01, 1e-12)).abs().max() < 1e-9
    with pytest.raises(ValueError, match="17 tokens of 16 dimensions: at most 16"):
        reweighted(drawn(17, 16), BOOST)


@pytest.mark.parametrize("wanted", [0, 1])
def test_only_words_of_frames_and_ends_are_edited_in_the_order_asked_for(wanted):
    official, paper = (
        frame_embeddings(PROMPT, FRAMES, ENDS, wanted, Strength(0.1, 1.0), Strength(-0.1, 0.5), order)
        for order in ("official", "paper")
    )
    assert torch.equal(official[:2], PROMPT[:2])  # begin-of-text and identity
    damped, boosted = FRAMES[1 - wanted], FRAMES[wanted]
    assert (official[damped].norm(dim=1) < PROMPT[damped].norm(dim=1)).all()
    assert official[boosted].norm() > official[damped].norm()
    first = PROMPT.clone()
    first[[*damped, *ENDS]] = reweighted(PROMPT[[*damped, *ENDS]], Strength(-0.1, 0.5))
    first[[*boosted, *ENDS]] = reweighted(first[[*boosted, *ENDS]], Strength(0.1, 1.0))
    torch.testing.assert_close(official, first)
    assert (official - paper).abs().max() > 1e-3  # the end tokens belong to both sets


def test_words_that_are_not_there_are_refused():
    assert places_of([5, 6], [1, 5, 7, 5, 6, 2]) == [3, 4]
    with pytest.raises(ValueError, match=r"\[6, 5\] are not in the prompt"):
        places_of([6, 5], [1, 5, 6])
    with pytest.raises(ValueError, match="not in the prompt"):
        places_of([], [1])
    with pytest.raises(ValueError, match="frame 1 has no words"):
        frame_embeddings(PROMPT, [[2], []], ENDS, 0)
    with pytest.raises(ValueError, match="neither 'official' nor 'paper'"):
        frame_embeddings(PROMPT, FRAMES, ENDS, 0, order="other")


def test_windows_go_in_a_circle():
    assert windows(4, 3) == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 1]]
    assert windows(2, 5) == [[0, 1], [1, 0]]


QUERIES, KEYS, VALUES, OTHER_KEYS, OTHER_VALUES = (drawn(2, n, 8, seed=n) for n in (3, 5, 6, 4, 7))
VALUES, OTHER_VALUES = VALUES[:, :5], OTHER_VALUES[:, :4]
ALL = QUERIES, KEYS, VALUES, OTHER_KEYS, OTHER_VALUES


def test_with_every_identity_token_masked_attention_is_plain():
    plain = scaled_dot_product_attention(QUERIES, KEYS, VALUES)
    none = torch.zeros(4, dtype=torch.bool)
    torch.testing.assert_close(attention_with_identity(*ALL, none), plain)
    zeroed = attention_with_identity(*ALL, none, "zeroed")
    weights = (QUERIES @ KEYS.mT / math.sqrt(8)).exp().sum(-1, keepdim=True)
    torch.testing.assert_close(zeroed, plain * weights / (weights + 4))  # four zero keys, e⁰ each


def test_kept_tokens_are_those_of_a_longer_prompt():
    kept = torch.tensor([True, False, True, False])
    joined = torch.cat([KEYS, OTHER_KEYS[:, kept]], 1), torch.cat([VALUES, OTHER_VALUES[:, kept]], 1)
    expected = scaled_dot_product_attention(QUERIES, *joined)
    torch.testing.assert_close(attention_with_identity(*ALL, kept), expected)
    without_begin = torch.tensor([False, False, True, False])
    assert (attention_with_identity(*ALL, without_begin) - expected).abs().max() > 1e-2
