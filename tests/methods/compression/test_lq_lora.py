"""LQ-LoRA: the decomposition on matrices, and what a run on digits stores and trains."""

import pytest
import torch
from safetensors.torch import load_file

from fisherexp.methods.compression.lq_lora import low_rank_plus_quantized
from fisherexp.quantization.normal_float import NormalFloat

torch.manual_seed(0)
W = 0.1 * torch.randn(60, 40, dtype=torch.float64)
W += torch.randn(60, 3, dtype=torch.float64) @ torch.randn(3, 40, dtype=torch.float64)
FISHER = torch.rand(60, 1, dtype=torch.float64).pow(4) * torch.rand(1, 40, dtype=torch.float64).pow(4)
FISHER = FISHER * (0.5 + torch.rand(60, 40, dtype=torch.float64))
ONES = torch.ones_like(W)


def error(parts, fisher):
    return (fisher.sqrt() * (W - parts[0] - parts[1] @ parts[2])).norm().item()


@pytest.mark.parametrize("fisher", [ONES, FISHER])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_best_iterate_is_returned_and_errors_fall_until_the_end(bits, fisher):
    *parts, errors = low_rank_plus_quantized(W, 5, NormalFloat(bits), fisher, 100)
    falling = errors if len(errors) == 100 else errors[:-1]
    assert falling == sorted(falling, reverse=True)
    assert error(parts, fisher) == pytest.approx(min(errors))
    assert parts[1].shape == (60, 5)
    plain = NormalFloat(bits)(W)
    assert min(errors) < (fisher.sqrt() * (W - plain)).norm() / 2


@pytest.mark.parametrize("bits", [2, 3])
def test_weights_by_the_fisher_lower_the_error_that_is_weighted_by_it(bits):
    weighted = low_rank_plus_quantized(W, 5, NormalFloat(bits), FISHER, 100)[:3]
    unweighted = low_rank_plus_quantized(W, 5, NormalFloat(bits), ONES, 100)[:3]
    assert error(weighted, FISHER) < error(unweighted, FISHER)
    assert error(weighted, ONES) > error(unweighted, ONES)


def test_a_constant_fisher_is_none_and_full_rank_loses_nothing():
    constant = low_rank_plus_quantized(W, 5, NormalFloat(2), 0.3 * ONES, 100)
    for one, other in zip(constant[:3], low_rank_plus_quantized(W, 5, NormalFloat(2), ONES, 100)[:3], strict=True):
        torch.testing.assert_close(one, other)
    assert error(low_rank_plus_quantized(W, 40, NormalFloat(2), FISHER, 100), FISHER) < 1e-9


@pytest.mark.parametrize("rank", [1, 5])
def test_a_randomized_decomposition_loses_nearly_as_little_as_the_exact_one(rank):
    """Close, and not the same: a control that it is another decomposition."""
    exact = low_rank_plus_quantized(W, rank, NormalFloat(3), FISHER, 100)[:3]
    found = low_rank_plus_quantized(W, rank, NormalFloat(3), FISHER, 100, "randomized")[:3]
    again = low_rank_plus_quantized(W, rank, NormalFloat(3), FISHER, 100, "randomized")[:3]
    assert error(found, FISHER) == pytest.approx(error(exact, FISHER), rel=0.05)
    assert not torch.equal(found[1], exact[1])
    assert torch.equal(found[1], again[1])


SMALL = ["method.rank=2", "method.weight_bits=[2,3,4]"]
UNTUNED = "method.finetune.epochs=0"


@pytest.mark.parametrize("budget", [2.6, 3.3, "null"])
def test_a_run_keeps_its_budget(compressed, budget):
    fit, _ = compressed("lq_lora", *SMALL, UNTUNED, f"method.budget={budget}", "method.block=[16]")
    most = NormalFloat(4, block=16).size if budget == "null" else budget
    assert fit.outcome["bits_per_weight"] <= most
    assert fit.outcome["bits_per_weight"] > most - 1.1
    adapters = 32 * 2 * (64 + 16 + 16 + 16) / (64 * 16 + 16 * 16)
    bits = fit.outcome["bits_per_weight_with_adapters"] - fit.outcome["bits_per_weight"]
    assert bits == pytest.approx(adapters)


def test_a_run_decomposes_as_it_is_told(compressed):
    exact, randomized = (
        compressed("lq_lora", *SMALL, UNTUNED, f"method.svd={svd}")[0] for svd in ("exact", "randomized")
    )
    lost = [fit.outcome["weighted_squared_error"] for fit in (exact, randomized)]
    assert lost[0] == pytest.approx(lost[1], rel=0.1)
    assert any(not torch.equal(tensor, randomized.factors[name]) for name, tensor in exact.factors.items())


@pytest.mark.parametrize("init", ["lq", "zero"])
def test_only_adapters_train(compressed, init, tmp_path):
    tuned, source = compressed("lq_lora", *SMALL, f"method.init={init}")
    untuned, _ = compressed("lq_lora", *SMALL, f"method.init={init}", UNTUNED)
    for name, tensor in tuned.model.state_dict().items():
        assert torch.equal(tensor, source[name]) == (name not in [f"backbone.layers.{i}.weight" for i in (1, 3)]), name
    for number, fit in enumerate((tuned, untuned)):
        fit.leave_files(tmp_path / f"{number}")
    one, other = (load_file(tmp_path / f"{number}" / "factors.safetensors") for number in (0, 1))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]) == name.endswith(".rest"), name


def test_at_the_start_the_decomposition_loses_less_than_quantization(compressed):
    lost = {}
    for init in ("lq", "zero"):
        for weighted in (True, False):
            options = [f"method.init={init}", f"method.weighted={weighted}", "method.budget=2.6", UNTUNED]
            fit, _ = compressed("lq_lora", *SMALL, *options)
            key = "weighted_squared_error" if weighted else "squared_error"
            lost[init, weighted] = fit.outcome[key]
    assert lost["lq", True] < lost["zero", True]
    assert lost["lq", False] < lost["zero", False]
