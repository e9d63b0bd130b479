"""DARE drops what it says and keeps the mean."""

import pytest
import torch

from fisherexp.methods.merging.dare import dropped


def test_mean_over_masks_is_the_change_itself():
    delta = {"a": torch.tensor([1.0, -2.0, 0.5])}
    drawn = torch.Generator().manual_seed(0)
    masks = torch.stack([dropped(delta, 0.8, drawn)["a"] for _ in range(20_000)])
    torch.testing.assert_close(masks.mean(0), delta["a"], rtol=0.05, atol=0)
    assert (masks == 0).double().mean().item() == pytest.approx(0.8, abs=0.01)
    torch.testing.assert_close(masks.abs().max(0).values, delta["a"].abs() * 5)
