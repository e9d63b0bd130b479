"""Rounding by torchao: what is stored is what torchao computes with, and what rounding to nearest finds by itself."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.torchao_rounding import TorchaoRounding, rounded
from fisherexp.quantization import Integer, load

pytest.importorskip("torchao", reason="torchao is not installed (pip install 'fisherexp[torchao]')")


def test_codes_and_scales_decode_to_what_torchao_computes_with():
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

    torch.manual_seed(0)
    for bits in (2, 3, 4, 8):
        for algorithm in ("affine", "hqq_scale_only"):
            layer = nn.Linear(64, 48, bias=False)
            codes, scales = rounded(layer.weight.detach(), bits, 32, algorithm)
            form = Integer(bits, 32, "symmetric_full")
            parts = form.assemble(codes.long() + 2 ** (bits - 1), scales, torch.zeros_like(scales))
            theirs = nn.Sequential(layer)
            kind = getattr(torch, f"int{bits}")
            quantize_(
                theirs,
                IntxWeightOnlyConfig(
                    kind, PerGroup(32), scale_dtype=torch.float16, intx_choose_qparams_algorithm=algorithm
                ),
            )
            expected = theirs[0].weight.dequantize().double()
            torch.testing.assert_close(form.decode(parts, (48, 64)), expected, rtol=1e-3, atol=1e-6)


def test_scales_of_hqq_are_those_of_least_squares_in_turn_with_rounding():
    torch.manual_seed(0)
    weight = torch.randn(32, 64)
    groups, scale = weight.view(32, 2, 32), weight.view(32, 2, 32).abs().amax(2) / 4
    for _ in range(20):
        codes = (groups / scale[..., None]).round().clamp(-4, 3)
        scale = (groups * codes).sum(2) / codes.square().sum(2)
    found, scales = rounded(weight, 3, 32, "hqq_scale_only")
    torch.testing.assert_close(scales.float(), scale, rtol=1e-3, atol=0)
    assert (found.view(32, 2, 32) == (groups / scale[..., None]).round().clamp(-4, 3)).double().mean() > 0.99


@pytest.mark.parametrize("bits", [3, 4])
def test_affine_is_rounding_to_nearest_and_hqq_loses_less(bits):
    """On heavy tails; theirs has half a step less at one end."""
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(4.0).sample((64, 128))
    lost = {}
    for algorithm in ("affine", "hqq_scale_only"):
        codes, scales = rounded(weight, bits, 32, algorithm)
        made = codes.double() * scales.double().repeat_interleave(32, dim=1)
        lost[algorithm] = ((made - weight).norm() / weight.norm()).item()
    ours = (Integer(bits, 32, "symmetric_full")(weight) - weight).norm() / weight.norm()
    assert lost["affine"] == pytest.approx(ours.item(), rel=0.1)
    assert lost["hqq_scale_only"] < 0.95 * lost["affine"]


@pytest.mark.parametrize("option", ["method.bits=3", "method.group=16", "method.algorithm=affine"])
def test_a_run_stores_what_it_evaluates_and_its_options_count(compressed, option, tmp_path):
    default, source = compressed("torchao", "method.group=8" if "group" in option else "method.group=16")
    other, _ = compressed("torchao", "method.group=16", option)
    names = [name for name in source if name in default.stored or name.removesuffix(".weight") in default.stored]
    assert names
    assert any(not torch.equal(default.model.state_dict()[n], other.model.state_dict()[n]) for n in names)
    other.leave_files(tmp_path)
    for name, stored in load(tmp_path / "quantized.safetensors").items():
        torch.testing.assert_close(stored.weight().float(), other.model.state_dict()[f"{name}.weight"])


def test_a_width_that_is_no_multiple_of_a_group_is_refused():
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"method\.group=16: 0 has 20 inputs"):
        TorchaoRounding(model, 4, 16, "affine", samples=4, exclude=None, max_width=64)
