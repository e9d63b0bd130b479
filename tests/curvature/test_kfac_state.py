"""KFAC in pieces: sums of two accumulators are the sums of one, and a saved one is read back whole."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fisherexp.curvature import KFAC, KFACAccumulator, kfac


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4, bias=False), nn.LayerNorm(4)]
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


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
@pytest.mark.parametrize("parameters", [None, ["0.weight"]])
def test_a_stored_state_goes_on_in_another_accumulator(tmp_path, approximation, parameters):
    """Bit for bit what one does without a stop, which the stored one is left out of."""
    options = {"approximation": approximation, "labels": "expected", "parameters": parameters}
    whole, first, second, third = (KFACAccumulator(network(), **options) for _ in range(4))
    for rows in (slice(0, 4), slice(4, 9)):
        whole.update(INPUTS[rows])
    first.update(INPUTS[:4])
    save_file({name: total.clone() for name, total in first.sums().items()}, tmp_path / "state.safetensors")
    second.load_sums(load_file(tmp_path / "state.safetensors"))
    second.update(INPUTS[4:])
    third.load_sums(second.sums())  # and with nothing more to see
    second.update(INPUTS[:4])
    found, expected = third.result(), whole.result()
    assert found.about() == expected.about()
    assert {name: f.bias for name, f in expected.factors.items()} == (
        {"0.weight": None} if parameters else {"0.weight": "0.bias", "3.weight": None}
    )
    for name, tensor in expected.tensors().items():
        assert torch.equal(found.tensors()[name], tensor), name


@pytest.mark.parametrize("key", ["a.0.weight+0.bias", "b.3.weight", "positions.0.weight", "samples"])
def test_a_state_that_lacks_something_or_is_of_another_shape_is_refused(key):
    accumulator = KFACAccumulator(network())
    accumulator.update(INPUTS, LABELS)
    state = accumulator.sums()
    without = {name: total for name, total in state.items() if name != key}
    bad = [without] if key == "samples" else [without, state | {key: torch.ones(2, 2)}]
    for wrong in bad:
        with pytest.raises(ValueError, match="does not fit"):
            KFACAccumulator(network()).load_sums(wrong)


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
