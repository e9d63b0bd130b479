"""ASVD: what its scales are of some inputs, and which error each makes smallest."""

import pytest
import torch

from fisherexp.methods.compression.asvd import input_root
from fisherexp.quantization import LayerStats, weighted_low_rank

GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(9, 7, generator=GENERATOR, dtype=torch.float64)
MIX = torch.randn(7, 7, generator=GENERATOR, dtype=torch.float64)
INPUTS = torch.randn(400, 7, generator=GENERATOR, dtype=torch.float64) @ MIX * torch.tensor([4, 1, 1, 0.2, 1, 2, 1])
SCALES = ("rms", "absolute", "full")


def stats_of(inputs):
    stats = LayerStats(inputs.shape[1])
    for batch in inputs.split(150):
        stats.add(batch)
    return stats


def product(scale, rank, alpha=1.0, inputs=INPUTS):
    left, right = weighted_low_rank(WEIGHT, rank, input_root(stats_of(inputs), scale, alpha))
    return left @ right


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_scales_are_powers_of_what_the_inputs_are_like(alpha):
    stats = stats_of(INPUTS)
    torch.testing.assert_close(input_root(stats, "rms", alpha).root, INPUTS.square().mean(0).sqrt() ** alpha)
    torch.testing.assert_close(input_root(stats, "absolute", alpha).root, INPUTS.abs().mean(0) ** alpha)
    root = input_root(stats, "full", alpha).root
    torch.testing.assert_close(root @ root.T, INPUTS.T @ INPUTS / len(INPUTS))


@pytest.mark.parametrize("scale", SCALES)
def test_at_full_rank_it_is_the_weight_and_the_unit_of_inputs_does_not_matter(scale):
    torch.testing.assert_close(product(scale, 7), WEIGHT)
    torch.testing.assert_close(product(scale, 3, inputs=100 * INPUTS), product(scale, 3))


def test_each_makes_its_own_error_smallest():
    """Eckart and Young: of outputs the whole root, of weighted columns the diagonal one, of the matrix plain SVD."""
    plain = torch.linalg.multi_dot(weighted_low_rank(WEIGHT, 3))
    found = {scale: product(scale, 3) for scale in SCALES} | {"svd": plain}
    columns = INPUTS.square().mean(0).sqrt()
    errors = {
        "full": {name: ((WEIGHT - made) @ INPUTS.T).norm() for name, made in found.items()},
        "rms": {name: ((WEIGHT - made) * columns).norm() for name, made in found.items()},
        "svd": {name: (WEIGHT - made).norm() for name, made in found.items()},
    }
    for best, by_name in errors.items():
        assert all(by_name[best] < error for name, error in by_name.items() if name != best), (best, by_name)


def test_inputs_of_one_size_leave_plain_svd():
    signs = torch.randint(2, (300, 7), generator=GENERATOR, dtype=torch.float64) * 2 - 1
    plain = torch.linalg.multi_dot(weighted_low_rank(WEIGHT, 3))
    for scale in ("rms", "absolute"):
        torch.testing.assert_close(product(scale, 3, inputs=3 * signs), plain)
    assert not torch.allclose(product("rms", 3), plain)


def test_the_record_says_what_of_the_outputs_is_lost(compressed):
    lost = {}
    for scale in ("rms", "full"):
        fit, _ = compressed("asvd", "method.rank=5", "method.finetune.epochs=0", f"method.scale={scale}")
        lost[scale] = sum(fit.outcome["squared_output_error_by_layer"].values())
    assert 0 < lost["full"] < lost["rms"]


def test_the_defaults_are_the_papers(compressed):
    lost = {}
    paper, other = (["method.scale=absolute", "method.alpha=0.5"], ["method.scale=rms", "method.alpha=1.0"])
    for name, options in {"default": [], "paper": paper, "other": other}.items():
        fit, _ = compressed("asvd", "method.rank=5", "method.finetune.epochs=0", *options)
        lost[name] = sum(fit.outcome["squared_output_error_by_layer"].values())
    assert lost["default"] == lost["paper"] > lost["other"]
