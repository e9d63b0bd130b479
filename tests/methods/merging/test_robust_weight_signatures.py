"""Robust weight signatures: the projection, and patches that can be scaled and added."""

import pytest
import torch
from torch import nn

from fisherexp.methods.merging.robust_weight_signatures import first_layers, patched, signature

LAYERS, NORMS = ["a.weight", "c.weight"], ["a.bias"]


def test_signature_is_orthogonal_to_clean_training(base, models):
    for name, start in base.items():
        clean, robust = models[0][name], models[1][name]
        v = signature(start, clean, robust)
        assert abs((v * (clean - start)).sum().item()) < 1e-12
        along = (robust - start - v) / (clean - start)  # what was taken away is a multiple of the clean direction
        torch.testing.assert_close(along, along.flatten()[0].expand_as(along))


def test_no_signature_where_robust_training_did_what_clean_training_did(base, models):
    v = signature(base["a.weight"], models[0]["a.weight"], models[0]["a.weight"])
    torch.testing.assert_close(v, torch.zeros_like(v), rtol=0, atol=1e-12)


def test_without_clean_training_all_of_the_change_is_the_signature(base, models):
    start, robust = base["a.weight"], models[1]["a.weight"]
    assert torch.equal(signature(start, start, robust), robust - start)


def test_alpha_zero_is_the_clean_model_and_other_tensors_stay(base, models, assert_same):
    clean, *robust = models
    assert_same(patched(base, clean, robust, LAYERS, NORMS, 0.0), clean, tolerance=0)
    found = patched(base, clean, robust, LAYERS[:1], [], 1.0)
    assert all(torch.equal(found[name], clean[name]) for name in clean if name != "a.weight")


def test_patches_of_several_corruptions_add_up(base, models, assert_same):
    clean, one, other = models
    both = patched(base, clean, [one, other], LAYERS, NORMS, 1.0)
    single = [patched(base, clean, [robust], LAYERS, NORMS, 0.5) for robust in (one, other)]
    assert_same(both, {name: single[0][name] + single[1][name] - clean[name] for name in clean})


def test_first_layers_with_the_normalization_between_them():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.Linear(2, 2))
    layers, norms = first_layers(model, 2)
    assert layers == ["0.weight", "2.weight", "2.bias"]
    assert norms == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    with pytest.raises(ValueError, match="only 3 layers"):
        first_layers(model, 4)
