"""The names of the corruptions and their constants at severities 1 to 5: two published tables, as data.

`cifar` is that of CIFAR-10-C (32×32 images), `imagenet` that of ImageNet-C (224×224). They differ: on 32×32 images
the constants of ImageNet-C are far harsher. Lengths are in pixels whatever the size of the image, except where the
published code names the side of its images:
elastic_transform: lengths are fractions of the side (ImageNet-C's code multiplies by 244 at 224 pixels).
frost: the last constant scales the textures, 0.2 for 32-pixel images.
fog: its map is as large as the next power of two, 32 and 256 as published.
glass_blur, pixelate: go over, and resize to a fraction of, the image as it is.
Light: no torch.
"""

from typing import get_args

from fisherexp.config.types import Corruption

# In the order of the benchmark; HELD_OUT are for choosing hyper-parameters.
NAMES: tuple[str, ...] = get_args(Corruption)
BENCHMARK, HELD_OUT = NAMES[:15], NAMES[15:]

CIFAR = {
    "gaussian_noise": [(0.04,), (0.06,), (0.08,), (0.09,), (0.10,)],  # σ
    "shot_noise": [(500,), (250,), (100,), (75,), (50,)],  # photons at full intensity
    "impulse_noise": [(0.01,), (0.02,), (0.03,), (0.05,), (0.07,)],  # share of values
    "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],  # disk radius, σ of its edge
    "glass_blur": [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],  # σ, reach, passes
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],  # radius, σ
    "zoom_blur": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],  # end (excluded), step
    "snow": [  # mean and σ of the flakes, zoom, threshold, motion radius and σ, weight of the image
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ],
    "frost": [(1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)],  # weights, scale
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],  # amount, decay of roughness
    "brightness": [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)],  # added to the value of HSV
    "contrast": [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)],  # factor of the distance from the mean
    "elastic_transform": [  # amplitude and σ of the displacement, jitter of the affine map: shares of the side
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ],
    "pixelate": [(0.95,), (0.9,), (0.85,), (0.75,), (0.65,)],  # share of the side
    "jpeg_compression": [(80,), (65,), (58,), (50,), (40,)],  # quality
    "speckle_noise": [(0.06,), (0.1,), (0.12,), (0.16,), (0.2,)],  # σ
    "gaussian_blur": [(0.4,), (0.6,), (0.7,), (0.8,), (1,)],  # σ
    "spatter": [  # mean and σ of the liquid, σ of its blur, threshold, strength or σ of the mud, mud?
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],  # factor of the saturation, added to it
}

IMAGENET = {
    "gaussian_noise": [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)],
    "shot_noise": [(60,), (25,), (12,), (5,), (3,)],
    "impulse_noise": [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)],
    "defocus_blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    "glass_blur": [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    "motion_blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    "zoom_blur": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    "snow": [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ],
    "frost": [(1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)],
    "fog": [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    "brightness": [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)],
    "contrast": [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)],
    "elastic_transform": [
        tuple(244 / 224 * share for share in shares)
        for shares in [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)]
    ],
    "pixelate": [(0.6,), (0.5,), (0.4,), (0.3,), (0.25,)],
    "jpeg_compression": [(25,), (18,), (15,), (10,), (7,)],
    "speckle_noise": [(0.15,), (0.2,), (0.35,), (0.45,), (0.6,)],
    "gaussian_blur": [(1,), (2,), (3,), (4,), (6,)],
    "spatter": [
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ],
    "saturate": [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
}

TABLES: dict[str, dict[str, list[tuple]]] = {"cifar": CIFAR, "imagenet": IMAGENET}

# How the published sets were saved: CIFAR-10-C in arrays, ImageNet-C in JPEG files of this quality, whatever the
# corruption. JPEG smooths noise: what was made with the same constants and not saved so is not comparable.
JPEG_QUALITY: dict[str, int | None] = {"cifar": None, "imagenet": 85}


def table_of(published: str | None) -> str:
    """The table that published copies, by the name of their folder, were made with."""
    return "imagenet" if published == "ImageNet-C" else "cifar"
