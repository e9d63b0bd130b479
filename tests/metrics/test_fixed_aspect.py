"""Spectra by windows: which windows, of which layers, and that the shape of a matrix no longer counts."""

import pytest
import torch

from fisherexp.metrics.fixed_aspect import as_matrices, eigenvalues, pooled, starts, windows
from fisherexp.metrics.power_law import fit

DRAWS = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("side", "window", "positions", "expected"),
    [
        (10, 10, 5, [0]),
        (12, 10, 5, [0, 1, 2]),
        (100, 20, 5, [0, 20, 40, 60, 80]),
        (30, 8, 4, [0, 7, 14, 21]),  # the last ends at 29 of 30
        (30, 8, 1, [0]),
    ],
)
def test_windows_begin_evenly_and_stay_inside(side, window, positions, expected):
    assert starts(side, window, positions) == expected


def test_windows_are_parts_of_the_matrix_and_never_larger():
    matrix = torch.arange(48.0).view(1, 6, 8)
    found = windows(matrix, 3, 2)
    assert found.shape == (4, 3, 3)
    assert torch.equal(found[-1], matrix[0, 3:6, 5:8])
    assert windows(matrix, 100, 3).shape == (3, 6, 6)


def test_a_square_by_one_window_is_the_plain_spectrum():
    square = torch.randn(20, 20, generator=DRAWS)
    torch.testing.assert_close(pooled(square, 20), eigenvalues(square))
    expected = torch.linalg.eigvalsh(square.double() @ square.double().T)
    torch.testing.assert_close(eigenvalues(square), expected, rtol=1e-8, atol=1e-10)


def test_zeros_that_rounding_left_are_no_eigenvalues():
    low = torch.randn(30, 4, generator=DRAWS) @ torch.randn(4, 20, generator=DRAWS)
    assert len(eigenvalues(low)) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_short_types_have_all_their_eigenvalues(dtype):
    noise = torch.randn(200, 300, generator=DRAWS).to(dtype)
    torch.testing.assert_close(eigenvalues(noise), eigenvalues(noise.float()))
    assert len(eigenvalues(noise)) == 200


def test_a_kernel_is_a_matrix_for_each_of_its_places():
    kernel = torch.randn(16, 12, 3, 3, generator=DRAWS)
    matrices = as_matrices(kernel)
    assert matrices.shape == (9, 16, 12)
    assert torch.equal(matrices[5], kernel[:, :, 1, 2])
    each = torch.cat([pooled(kernel[:, :, i, j], 6, 3) for i in range(3) for j in range(3)]).sort().values
    torch.testing.assert_close(pooled(kernel, 6, 3), each)


def test_alpha_of_noise_does_not_feel_the_shape():
    """Whole matrices of nothing but noise look as different as trained and untrained ones; windows do not."""
    noise = [torch.randn(*shape, generator=DRAWS) for shape in [(256, 256), (512, 128), (1024, 64), (128, 512)]]
    spread = lambda alphas: max(alphas) - min(alphas)  # noqa: E731
    assert spread([float(fit(eigenvalues(matrix)).alpha) for matrix in noise]) > 3
    assert spread([float(fit(pooled(matrix, 64, 5)).alpha) for matrix in noise]) < 0.1
