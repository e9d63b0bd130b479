"""A start and three models near it, with a matrix, a vector and a convolution."""

import pytest
import torch

SHAPES = {"a.weight": (6, 5), "a.bias": (6,), "c.weight": (4, 2, 3, 3)}


def state(seed: int) -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=drawn, dtype=torch.float64) for name, shape in SHAPES.items()}


@pytest.fixture
def base():
    return state(0)


@pytest.fixture
def models(base):
    return [{name: start + 0.3 * state(k)[name] for name, start in base.items()} for k in (1, 2, 3)]


@pytest.fixture
def assert_same():
    """Fails unless two states are the same, up to `tolerance`."""

    def check(found, expected, tolerance: float = 1e-10) -> None:
        assert set(found) == set(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")

    return check
