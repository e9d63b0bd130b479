"""The study of streamed inference: of a source that svd compressed it has the factors, and it saves memory."""

import pytest
import torch

from fisherexp.data.batch import Batch
from fisherexp.methods.compression.factorization import decompose
from fisherexp.methods.compression.factorization import factorize as adapt
from fisherexp.methods.compression.flash_svd import FlashSVD, ranks_of
from fisherexp.methods.compression.weighted_svd import weighted_svd
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.classifier import Classifier

TOKENS = torch.randint(7, (6, 40), generator=torch.Generator().manual_seed(0))


def small_model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(CharGPT(dim=24, depth=2, heads=3, tied=False, input_shape=(40,), vocabulary=7), 24, 7)


def studied(model: Classifier, **options) -> dict:
    study = FlashSVD(model, **({"rank": None, "ratio": 0.33, "tile": 16, "heads_at_once": 1} | options))
    study.given["first_batch"] = Batch(TOKENS, TOKENS)
    study.source_loaded()
    return study.outcome


def test_of_a_model_that_svd_compressed_the_low_rank_one_is_the_dense_one():
    from fisherexp import adapters

    model = small_model()
    layers = adapt(model, None, 0.33)
    for layer in layers.values():
        weight, rank = layer.matrix.detach().clone(), len(layer.adapters[0].down)
        n, m = weight.shape
        decompose(layer, 0.0, *weighted_svd(weight, weight.new_ones(n), weight.new_ones(m), rank))
    merged = {name: len(layer.adapters[0].down) for name, layer in layers.items()}
    adapters.merge(model)
    study = FlashSVD(model, None, 0.33, 16, 1)
    assert study.ranks == merged  # the same rule as svd's
    before = model(TOKENS)
    study.given["first_batch"] = Batch(TOKENS, TOKENS)
    study.source_loaded()
    assert torch.equal(model(TOKENS), before)
    assert study.outcome["metrics"]["difference"] < 1e-5


def test_memory_falls_with_tiles_and_heads():
    found = {
        name: studied(small_model(), **options)
        for name, options in {"fine": {}, "wide": {"tile": 96}, "heads": {"heads_at_once": 3}}.items()
    }
    peaks = {name: each["bytes"]["streamed"]["peak"] for name, each in found.items()}
    assert peaks["fine"] < min(peaks["wide"], peaks["heads"])
    metrics = found["fine"]["metrics"]
    assert metrics["peak_plain"] >= metrics["peak_dense"] > metrics["peak_streamed"]
    assert metrics["saved"] == pytest.approx(100 * (1 - metrics["peak_streamed"] / metrics["peak_plain"]))
    assert metrics["difference"] < 1e-5


def test_ranks_are_given_or_follow_from_the_ratio():
    model = small_model()
    assert set(ranks_of(model, 5, 0.1).values()) == {5}
    assert ranks_of(model, None, 0.5)["backbone.blocks.0.mlp.0"] == int(0.5 * 24 * 96 / 120)
