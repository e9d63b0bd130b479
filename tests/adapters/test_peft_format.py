"""peft reads what is written for it, from files, onto the original weights: the same outputs as our model's."""

import copy
import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fisherexp.adapters import (
    EVA,
    SORSA,
    AdaLoRA,
    Bone,
    DoRA,
    LoRA,
    MiSS,
    PiSSA,
    RandomMask,
    SoMA,
    SVFit,
    adapted_layers,
    inject,
    peft_format,
)

# Pattern of what is trained beside -> modules that are trained as a whole.
WHOLE = {None: ["head"], "norm": ["norm"]}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.first = nn.Linear(8, 12)
        self.norm = nn.LayerNorm(12)
        self.second = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(6 * 8, 5)

    def forward(self, tokens):
        x = self.second(self.norm(self.first(self.tokens(tokens))).tanh())
        return self.head(self.conv(x[:, None]).mean(2).flatten(1))


def eva(weight, rank, **options):
    return EVA(weight, torch.linalg.qr(torch.randn(weight.shape[1], rank))[0].T, 3, **options)


LINEAR, ALL = ["first", "second"], ["tokens", "conv", "first", "second"]
METHODS = {
    "lora": (partial(LoRA, rank=2, alpha=3), ALL, {}),
    "rslora": (partial(LoRA, rank=2, alpha=3, rank_stabilized=True), ALL, {}),
    "unscaled": (partial(LoRA, rank=2), ALL, {}),
    "ranks by layer": (partial(LoRA, rank=2, alpha=3), ALL, {"options": {"first": {"rank": 4}, "conv": {"alpha": 7}}}),
    "eva": (partial(eva, rank=2, alpha=3), LINEAR, {"options": {"first": {"rank": 1}}}),
    "dora": (partial(DoRA, rank=2, alpha=3), ALL, {}),
    "pissa": (partial(PiSSA, rank=2, alpha=3), ALL, {}),
    "stabilized pissa": (partial(PiSSA, rank=2, alpha=3, rank_stabilized=True), LINEAR, {}),
    "soma": (partial(SoMA, rank=2, alpha=3), LINEAR, {"trained": "bias$"}),
    "adalora": (partial(AdaLoRA, rank=3, target=1, alpha=3), LINEAR, {}),
    "miss": (partial(MiSS, rank=5), LINEAR, {}),
    "tiled miss": (partial(MiSS, rank=4, tile=2), LINEAR, {}),
    "bat": (partial(Bone, rank=4), LINEAR, {}),
    "a norm beside": (partial(LoRA, rank=2), LINEAR, {"trained": "norm"}),
    "a norm's bias": (partial(LoRA, rank=2), LINEAR, {"trained": "norm.bias|second"}),
}


def trained(make, layers, trained="^head", **options):
    """The original model, and one whose trained numbers, head and all, have moved."""
    torch.manual_seed(0)
    base = Net()
    model = copy.deepcopy(base)
    inject(model, layers, make, trained=trained, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    return base, model


@pytest.mark.parametrize("method", METHODS)
def test_peft_gives_the_same_outputs_from_the_files(method, tmp_path):
    peft = pytest.importorskip("peft")
    make, layers, options = METHODS[method]
    base, model = trained(make, layers, **options)
    config, tensors = peft_format(model)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    x = torch.randint(11, (16, 7))
    plain = base(x)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    assert not torch.allclose(model(x), plain, atol=1e-2)
    torch.testing.assert_close(theirs(x), model.eval()(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(theirs.merge_and_unload()(x), model(x), atol=2e-6, rtol=1e-6)
    written = {key.replace(".default", "") for key in peft.get_peft_model_state_dict(theirs)}
    assert written <= {*tensors}  # the names that peft itself would write


@pytest.mark.parametrize("method", METHODS)
def test_names_and_config_say_what_is_there(method):
    make, layers, options = METHODS[method]
    _, model = trained(make, layers, **options)
    config, tensors = peft_format(model)
    assert set(config["target_modules"]) == set(layers) == {*adapted_layers(model)}
    assert config["modules_to_save"] == WHOLE.get(options.get("trained"))
    assert all(name.startswith("base_model.model.") for name in tensors)
    json.dumps(config)


def grouped():
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))


@pytest.mark.parametrize(
    "made",
    [
        lambda: inject_into(Net(), partial(SVFit, rank=2)),
        lambda: inject_into(Net(), partial(SORSA, rank=2)),
        lambda: inject_into(Net(), partial(RandomMask, rank=2)),
        lambda: inject_into(Net(), partial(MiSS, rank=1), layers=["conv"]),
        lambda: inject_into(Net(), partial(MiSS, rank=2), options={"first": {"rank": 4}}),
        lambda: inject_into(Net(), partial(LoRA, rank=2), rows={"first": [(0, 4)]}),
        lambda: inject_into(inject_into(Net(), partial(LoRA, rank=2)), partial(LoRA, rank=2)),
        lambda: inject_into(grouped(), partial(LoRA, rank=2), layers=["0"]),
        Net,
    ],
)
def test_what_peft_does_not_know_is_none(made):
    assert peft_format(made()) is None


def inject_into(model, make, layers=LINEAR, **options):
    inject(model, layers, make, **options)
    return model
