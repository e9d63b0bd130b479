"""Frames of a story from one prompt: the identity and all frames are encoded together, and for each frame the wanted
words are made stronger, the others weaker, and the identity's keys and values are added to cross-attention.

    X = [words of a frame, end tokens] (d × tokens) = U diag(σ) Vᵀ
    boost the wanted frame:       σ ← β e^(ασ) σ
    damp each of the others:      σ ← β e^(-ασ) σ
    identity (IPCA):              K ← [K; K̄], V ← [V; V̄],  K̄, V̄ of the identity prompt alone

Liu et al.: One-Prompt-One-Story, ICLR 2025, arXiv 2501.13554. The released code damps first and boosts then, the paper
boosts first; it masks unwanted tokens of K̄ with -∞, where the paper sets them to zero, which leaves each of them the
share e⁰ of a softmax. Its identity copy keeps the begin-of-text token. All of the end tokens are in X and are edited
with every frame. The exponent depends on the scale of σ: constants for CLIP are not those of another encoder.

Embeddings are (…, tokens, d), of one prompt or of several alike. Places are indices of tokens.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Order = Literal["official", "paper"]


class Strength(NamedTuple):
    """alpha: of the exponent, in units of 1/σ. beta: a factor."""

    alpha: float
    beta: float


# Of the released code, for CLIP.
BOOST, DAMP = Strength(0.01, 1.0), Strength(-0.01, 0.05)


def reweighted(embeddings: Tensor, strength: Strength) -> Tensor:
    """Singular values σ of the embeddings (…, tokens, d) become β e^(ασ) σ, computed in float64; vectors stay.

    Raises ValueError for more tokens than dimensions, whose directions are not independent.
    """
    tokens, size = embeddings.shape[-2:]
    if tokens > size:
        raise ValueError(f"{tokens} tokens of {size} dimensions: at most {size} can be reweighted together")
    left, values, right = torch.linalg.svd(embeddings.double().mT, full_matrices=False)
    values = strength.beta * (strength.alpha * values).exp() * values
    return (left * values[..., None, :] @ right).mT.to(embeddings)


def reweighted_at(embeddings: Tensor, words: Sequence[int], ends: Sequence[int], strength: Strength) -> Tensor:
    """The embeddings with those at `words` and `ends` reweighted together."""
    places = torch.tensor([*words, *ends], device=embeddings.device)
    return embeddings.index_copy(-2, places, reweighted(embeddings[..., places, :], strength))


def frame_embeddings(
    embeddings: Tensor,
    frames: Sequence[Sequence[int]],
    ends: Sequence[int],
    wanted: int,
    boost: Strength = BOOST,
    damp: Strength = DAMP,
    order: Order = "official",
) -> Tensor:
    """What frame `wanted` is generated from. frames: places of each frame's words, ends: of the end tokens.

    Raises ValueError for a frame without words, where only the end tokens would be edited.
    """
    for number, words in enumerate(frames):
        if not words:
            raise ValueError(f"frame {number} has no words in the prompt")
    edits = [(words, damp) for number, words in enumerate(frames) if number != wanted]
    if order == "official":
        edits = [*edits, (frames[wanted], boost)]
    elif order == "paper":
        edits = [(frames[wanted], boost), *edits]
    else:
        raise ValueError(f"order={order!r} is neither 'official' nor 'paper'")
    for words, strength in edits:
        embeddings = reweighted_at(embeddings, words, ends, strength)
    return embeddings


def places_of(words: Sequence[int], prompt: Sequence[int]) -> list[int]:
    """Where the words are in the prompt, both as tokens: the first exact run. Raises ValueError where there is none."""
    words, prompt = list(words), list(prompt)
    for first in range(len(prompt) - len(words) + 1):
        if words and prompt[first : first + len(words)] == words:
            return list(range(first, first + len(words)))
    raise ValueError(f"the tokens {words} are not in the prompt one after the other")


def windows(frames: int, size: int) -> list[list[int]]:
    """For each frame the frames whose words share its prompt: `size` of them from it on, in a circle."""
    return [[(first + step) % frames for step in range(min(size, frames))] for first in range(frames)]


def attention_with_identity(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    identity_keys: Tensor,
    identity_values: Tensor,
    kept: Tensor,
    unwanted: Literal["masked", "zeroed"] = "masked",
) -> Tensor:
    """Cross-attention over the frame's tokens and the identity prompt's: (…, q, d).

    queries: (…, q, d). keys, values: (…, k, d). identity_keys, identity_values: (…, i, d). kept: (i,) bool, the
    identity's words and its begin-of-text token. unwanted: what is made of the others: "masked" as in the released
    code, "zeroed" as in the paper.
    """
    if unwanted == "zeroed":
        identity_keys = identity_keys * kept[:, None]
        identity_values = identity_values * kept[:, None]
    scores = queries @ torch.cat([keys, identity_keys], -2).mT / math.sqrt(queries.shape[-1])
    if unwanted == "masked":
        everything = torch.cat([kept.new_ones(keys.shape[-2]), kept])
        scores = scores.masked_fill(~everything, -math.inf)
    return scores.softmax(-1) @ torch.cat([values, identity_values], -2)
