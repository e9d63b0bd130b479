"""KFAC in pieces: sums of two accumulators are the sums of one, and a saved one is read back whole."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import KFAC, KFACAccumulator, kfac


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4, bias=False), nn.LayerNorm(4)]
    return nn.Sequential(*layers).double()


INPUTS, LABELS = torch.randn(9, 2, 5, 5, dtype=torch.float64), torch.randint(4, (9,))


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
def test_sums_over_ranks_are_those_of_all_samples(approximation):
    model = network()
    parts = []
    for rows in (slice(0, 5), slice(5, 9)):
        accumulator = KFACAccumulator(model, approximation=approximation)
        accumulator.update(INPUTS[rows], LABELS[rows])
        parts.append(accumulator)
    total = {name: value + parts[1].sums()[name] for name, value in parts[0].sums().items()}
    parts[0].load_sums(total)
    found, whole = parts[0].result(), kfac(model, [(INPUTS, LABELS)], approximation=approximation)
    assert found.count == whole.count == 9
    for name, factor in whole.factors.items():
        torch.testing.assert_close(found.factors[name].a, factor.a, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found.factors[name].b, factor.b, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="does not fit"):
        parts[0].load_sums({"a.elsewhere": INPUTS})


def test_saved_and_read_back(tmp_path):
    whole = kfac(network(), [(INPUTS, LABELS)])
    whole.save(tmp_path / "kfac.safetensors")
    loaded = KFAC.load(tmp_path / "kfac.safetensors")
    assert (loaded.skipped, loaded.estimator, loaded.approximation) == (
        whole.skipped,
        whole.estimator,
        whole.approximation,
    )
    delta = {name: torch.randn_like(parameter) for name, parameter in network().named_parameters()}
    assert loaded.quadratic(delta) == whole.quadratic(delta)
    assert [p.name for p in tmp_path.iterdir()] == ["kfac.safetensors"]
