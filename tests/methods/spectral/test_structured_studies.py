"""The figures of the KFAC and low-rank studies against dense matrices in float64."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import LowRankFisher, kfac
from fisherexp.methods.spectral.kfac import spread
from fisherexp.methods.spectral.low_rank_fisher import spectrum


def test_the_spread_of_a_block_is_that_of_its_dense_matrix():
    torch.manual_seed(0)
    layers = [nn.Conv1d(2, 4, 2, groups=2), nn.Flatten(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)]
    model = nn.Sequential(*layers).double()
    fisher = kfac(model, [(torch.randn(20, 2, 3, dtype=torch.float64), torch.randint(2, (20,)))])
    assert len(fisher.factors) == 3
    for name, found in spread(fisher).items():
        values = torch.linalg.eigvalsh(fisher.factors[name].dense())
        rank = values.sum() ** 2 / values.square().sum()
        expected = {"trace": values.sum(), "largest_eigenvalue": values[-1], "effective_rank": rank}
        assert found == pytest.approx({key: value.item() for key, value in expected.items()})


def test_the_spectrum_is_that_of_the_dense_fisher_without_damping():
    rows = torch.randn(5, 9, dtype=torch.float64)
    dense = torch.linalg.eigvalsh(rows.T @ rows / 5).flip(0)
    torch.testing.assert_close(spectrum(LowRankFisher(rows)), dense[:5], rtol=1e-10, atol=1e-12)
