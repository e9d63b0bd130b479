"""Two processes, each with a share of the batches (gloo), find what one process finds with all of them."""

from functools import partial

import pytest
import torch
from torch import nn
from two_ranks import found_by_two

from fisherexp.callbacks import measures

pytestmark = pytest.mark.end_to_end

# The second rank has fewer batches, and its last one is smaller.
SHARES = ([12, 12, 12], [12, 5])
EXACT = {
    "eigenvalues": partial(measures.eigenvalues, count=2, tolerance=1e-8),
    "low_rank": partial(measures.low_rank, damping=1e-2),
    "gradient_norms": measures.gradient_norms,
    "second_moments": partial(measures.second_moments, parameters=["0.bias"]),
}


def model_and_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    sizes = [size for share in SHARES for size in share]
    images, labels = torch.randn(sum(sizes), 5, dtype=torch.float64), torch.randint(3, (sum(sizes),))
    return model, list(zip(images.split(sizes), labels.split(sizes), strict=True))


def one_rank(rank: int) -> dict:
    model, batches = model_and_batches()
    first = len(SHARES[0])
    mine = batches[:first] if rank == 0 else batches[first:]
    return {name: measure(model, mine) for name, measure in EXACT.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return found_by_two(one_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", EXACT)
def test_two_ranks_find_what_one_finds(found, name):
    expected = EXACT[name](*model_and_batches())
    for rank in found:
        for key, tensor in expected.items():
            if key != "residuals":  # of rounding size
                torch.testing.assert_close(rank[name][key], tensor, rtol=1e-9, atol=1e-12)
