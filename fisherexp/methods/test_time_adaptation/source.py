"""The source model as it is: what every adaptation is measured against."""

from torch import nn

from fisherexp.methods.test_time_adaptation.adaptation import Adaptation


class Source(Adaptation):
    """No adaptation; normalizes by the statistics stored in training."""

    paper = "control of every test-time method"
    # ImageNet-C, severity 5, ResNet-50: README of the official EATA code; the mean is that of its figures.
    published = {
        "imagenet/reset_each_shift": {
            "mean_error": (82.0,),
            "error/gaussian_noise": (97.8,),
            "error/shot_noise": (97.1,),
            "error/impulse_noise": (98.2,),
            "error/defocus_blur": (82.1,),
            "error/glass_blur": (90.2,),
            "error/motion_blur": (85.2,),
            "error/zoom_blur": (77.5,),
            "error/snow": (83.1,),
            "error/frost": (76.7,),
            "error/fog": (75.6,),
            "error/brightness": (41.1,),
            "error/contrast": (94.6,),
            "error/elastic_transform": (83.1,),
            "error/pixelate": (79.4,),
            "error/jpeg_compression": (68.4,),
        },
    }
    study = True
    adapts_at_test = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
