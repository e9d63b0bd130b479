"""The grid of samples: every image at its place, and a figure as a file."""

import pytest
import torch

from fisherexp.problems.sample_figure import draw_samples, grid


@pytest.mark.parametrize("channels", [1, 3])
def test_images_lie_row_by_row_on_white(channels):
    images = torch.rand(5, channels, 4, 3)
    sheet = grid(images, columns=2)
    assert sheet.shape == (channels, 3 * 5 + 1, 2 * 4 + 1)
    for i in range(5):
        top, left = 5 * (i // 2) + 1, 4 * (i % 2) + 1
        assert torch.equal(sheet[:, top : top + 4, left : left + 3], images[i])
    assert (sheet[:, 11:, 4:] == 1).all()  # no sixth image
    assert (sheet[:, ::5] == 1).all()
    assert (sheet[:, :, ::4] == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_drawn(tmp_path, channels):
    draw_samples(torch.randn(5, channels, 8, 8), tmp_path / "samples", columns=2)
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "samples.pdf"}
