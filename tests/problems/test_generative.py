"""Evaluation by samples: of training images, of noise, of a Gaussian with the images' own mean and covariance."""

import pytest
import torch

from fisherexp.config.explain import composed, explain
from fisherexp.metrics.random_convolutions import random_convolutions
from fisherexp.problems.generative import compared, scaled
from fisherexp.runs.identity import semantic
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import generator

LINE = ["method=ddpm", "progress=off"]


@pytest.fixture(scope="module")
def problem():
    return Workbench(composed(LINE)).problem.load(0)


@pytest.fixture(scope="module")
def images(problem):
    """All training images (1200, 1, 8, 8), in [-1, 1]."""
    return scaled(problem.setting.parts["train"].inputs)


class Copies:
    """Draws training images with replacement."""

    def __init__(self, images):
        self.images = images

    def sample(self, number, generator):
        return self.images[torch.randint(len(self.images), (number,), generator=generator)]


def test_pixels_are_scaled_to_one_on_either_side():
    assert scaled(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_the_same_images_are_at_no_distance(images):
    found = compared(images[:300], images[:300])
    assert found["frechet"] == pytest.approx(0, abs=1e-3)
    assert found["spectrum_error"] == 0


def test_features_see_more_than_means_and_covariances_of_pixels(images):
    """The control a projection of pixels would fail: there a Gaussian like the images is as near as the images."""
    pixels = images.flatten(1).double()
    root = torch.linalg.cholesky(pixels.T.cov() + 1e-6 * torch.eye(64, dtype=torch.float64))
    white = torch.randn(600, 64, dtype=torch.float64, generator=generator("white"))
    gaussian = (pixels.mean(0) + white @ root.T).float().view(-1, 1, 8, 8)
    real, like_them = (compared(some, images[600:])["frechet"] for some in (images[:600], gaussian))
    assert like_them > 3 * real


def test_more_noise_is_farther(images):
    noise = torch.randn(600, 1, 8, 8, generator=generator("noise"))
    found = [compared(images[:600] + level * noise, images[600:])["frechet"] for level in (0.0, 0.1, 0.3, 1.0)]
    assert found == sorted(found)


def test_features_are_the_same_in_every_process_and_for_any_batch(images):
    first = random_convolutions(images[:5])
    torch.manual_seed(7)
    assert first.shape == (5, 128)
    torch.testing.assert_close(random_convolutions(images[:1])[0], first[0])
    assert not torch.equal(random_convolutions(images[:5].flip(-1)), first)
    assert random_convolutions(torch.zeros(2, 3, 28, 28)).shape == (2, 128)


def test_a_sampler_of_training_images_is_as_good_as_they_are(problem, images, tmp_path):
    found, of_images = problem.evaluate(Copies(images)), problem.about()["training_images"]
    assert len(problem.samples) == problem.about()["compared"] == 597
    assert found["frechet"] < 3 * of_images["frechet"]
    noise = problem.evaluate(Copies(torch.randn_like(images)))
    assert noise["frechet"] > 30 * found["frechet"]
    assert noise["spectrum_error"] > found["spectrum_error"]
    problem.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{stem}.{kind}" for stem in ("samples", "spectra") for kind in ("png", "pdf")
    }


def test_samples_are_drawn_from_the_stream_of_the_seed(images):
    found = [Workbench(composed(LINE)).problem.load(seed).evaluate(Copies(images)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_on_validation_samples_are_compared_with_validation_images():
    made = Workbench(composed([*LINE, "evaluate_on=validation", "data.validation=0.25"])).problem.load(0)
    assert made.about()["compared"] == 300


def test_a_head_is_no_part_of_such_a_run():
    assert "head" not in semantic(composed(LINE))
    assert "head" in semantic(composed(["method=erm"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data=tiny_shakespeare", "DDPM"),
        ("scenario=class_forgetting", "DDPM needs a plain scenario"),
        ("model=small_cnn", "this model is for problems of kind supervised"),
        ("method=erm", "this model is for problems of kind generative"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    problems = explain([*LINE, "model=unet", "training=diffusion", change])
    assert any(words in str(problem) for problem in problems), problems
