"""Corrupted images saved as the published sets were."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from fisherexp.data.corruptions import corrupt
from fisherexp.data.digits import Digits
from fisherexp.runs.store import ArtefactStore
from fisherexp.scenarios.streams import Continual
from fisherexp.seeds import generator


@pytest.fixture(scope="module")
def photographs():
    """The middle 224×224 pixels of scikit-learn's two, uint8 (2, 3, 224, 224)."""
    crops = [image[101:325, 208:432].transpose(2, 0, 1) for image in load_sample_images().images]
    return torch.from_numpy(np.stack(crops))


def test_every_corrupted_image_goes_through_a_jpeg_file(photographs):
    plain = corrupt(photographs, "contrast", 3, table="imagenet")
    for image, saved in zip(plain, corrupt(photographs, "contrast", 3, table="imagenet", quality=85), strict=True):
        file = io.BytesIO()  # as ImageNet-C's script writes it
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=85, optimize=True)
        assert torch.equal(saved, torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))


def test_jpeg_takes_a_quarter_of_the_noise(photographs):
    """Deviation from the clean image, in levels of 255; as measured, see the guide."""
    made, saved = (corrupt(photographs, "gaussian_noise", 5, table="imagenet", quality=q) for q in (None, 85))
    deviations = [(noisy.double() - photographs).std().item() for noisy in (made, saved)]
    assert deviations == pytest.approx([74.2, 54.2], abs=0.2)


@pytest.mark.parametrize(
    ("options", "quality"),
    [
        ({}, None),
        ({"table": "imagenet"}, 85),
        ({"table": "imagenet", "saved": "lossless"}, None),
        ({"saved": "jpeg"}, 85),
    ],
)
def test_streams_are_saved_as_published_unless_told_otherwise(options, quality, tmp_path):
    data, store, table = Digits().load(), ArtefactStore(tmp_path), options.get("table", "cifar")
    # Kept in the store, images of another saving must not be taken for these.
    other = "lossless" if quality else "jpeg"
    Continual(["impulse_noise"], images=20, table=table, saved=other).setting(data, 0, store)
    setting = Continual(["impulse_noise"], images=20, **options).setting(data, 0, store)
    images = data.test.inputs[torch.randperm(len(data.test), generator=generator("stream", 0))[:20]]
    expected = corrupt(images, "impulse_noise", 5, table=table, quality=quality)
    assert torch.equal(setting.parts["impulse_noise"].inputs, expected)
    assert setting.about["corruptions"].endswith("quality 85") == (quality == 85)
