"""The experiment's population: where the signal is and how strong."""

import pytest
import torch

from fisherexp.data.biased_gaussians import holdout_instance


@pytest.mark.parametrize("signal", [False, True])
def test_only_twenty_variables_lean_towards_the_label_and_only_with_signal(signal):
    data = holdout_instance(900, 40, signal, torch.Generator().manual_seed(0))
    for sample in data:
        assert sample.inputs.shape == (900, 40)
        assert set(sample.labels.tolist()) == {-1.0, 1.0}
        means = sample.labels @ sample.inputs / 900
        assert means[:20].mean().item() == pytest.approx(6 / 30 if signal else 0, abs=4 / 900**0.5 / 20**0.5)
        assert means[20:].mean().item() == pytest.approx(0, abs=4 / 900**0.5 / 20**0.5)
    assert not torch.equal(data.train.inputs, data.holdout.inputs)


def test_too_few_variables_for_the_signal():
    with pytest.raises(ValueError, match="d=5: the signal is in 20 variables"):
        holdout_instance(10, 5, True, torch.Generator())
