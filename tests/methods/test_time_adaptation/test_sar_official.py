"""SAR against its official code, written anew from what that computes: recovery, batches without reliable samples, and
which layers adapt. In double precision."""

import copy
import math

import torch
import torchvision
from alone import CLASSES, answers, images, network
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.methods.test_time_adaptation.entropy import entropy, log_softmax
from fisherexp.methods.test_time_adaptation.norms import affine_parameters, use_batch_statistics
from fisherexp.methods.test_time_adaptation.sar import SAR
from fisherexp.methods.test_time_adaptation.update import UpdateRule

RATE, MARGIN, RESET = 0.05, 0.25, 0.2


def official(model, batches):
    """Logits of each batch, recoveries, and batches without reliable samples."""
    model = copy.deepcopy(model).eval()
    use_batch_statistics(model)
    moving = list(affine_parameters(model).values())
    origin = [p.detach().clone() for p in moving]
    optimizer, average, margin = torch.optim.SGD(moving, RATE, 0.9), None, MARGIN * math.log(CLASSES)
    logits, recoveries, empty = [], 0, 0
    for batch in batches:
        logits.append(model(batch))
        first = entropy(log_softmax(logits[-1]))
        chosen = torch.where(first < margin)
        empty += not len(chosen[0])
        optimizer.zero_grad()
        first[chosen].mean().backward()  # the mean of nothing is NaN and has a gradient of zeros
        before = [p.detach().clone() for p in moving]
        norm = torch.stack([p.grad.norm() for p in moving]).norm()
        for p in moving:
            p.data += p.grad * 0.05 / (norm + 1e-12)
        optimizer.zero_grad()
        second = entropy(log_softmax(model(batch)))[chosen]
        second = second[torch.where(second < margin)].mean()
        if not second.isnan():
            average = second.item() if average is None else 0.9 * average + 0.1 * second.item()
        second.backward()
        for p, value in zip(moving, before, strict=True):
            p.data.copy_(value)
        optimizer.step()
        if average is not None and average < RESET:
            recoveries += 1
            for p, value in zip(moving, origin, strict=True):
                p.data.copy_(value)  # the momentum stays, and so does the average
    return [z.detach() for z in logits], recoveries, empty


def test_recovery_and_empty_batches_are_those_of_the_official_code():
    batches = list(images(80).split(4))
    expected, recoveries, empty = official(network(2.0), batches)
    assert 0 < recoveries < len(batches)
    assert 0 < empty < len(batches)
    found = {}
    for recovery in ("everything", "official"):
        for step_on in ("reliable", "every_batch"):
            options = {"e_margin": MARGIN, "rho": 0.05, "e_reset": RESET, "recovery": recovery, "step_on": step_on}
            method = SAR(network(2.0), UpdateRule("sgd", RATE, 0.9), **options, skip=[])
            found[recovery, step_on] = torch.cat(answers(method, batches))
    theirs = found.pop(("official", "every_batch"))
    torch.testing.assert_close(theirs, torch.cat(expected), rtol=1e-6, atol=1e-6)
    assert all((logits - theirs).abs().max() > 1e-3 for logits in found.values())


def nested(paths: list[str]) -> nn.Module:
    """A tree of modules with a LayerNorm at each dotted path."""
    root = nn.Module()
    for path in paths:
        *parents, name = path.split(".")
        inner = root
        for parent in parents:
            if parent not in dict(inner.named_children()):
                inner.add_module(parent, nn.Module())
            inner = inner.get_submodule(parent)
        inner.add_module(name, nn.LayerNorm(2))
    return root


LAYERS = [
    *("layer3.0.bn1", "layer4.0.bn1"),  # a ResNet
    *("blocks.0.norm1", "blocks.8.norm2", "blocks.9.norm1", "blocks.10.norm1", "blocks.11.norm2", "norm"),  # a ViT
    *("patch_embed.norm", "layers.1.downsample.norm", "layers.1.blocks.0.norm1", "layers.2.blocks.10.norm1"),  # a Swin
]


def test_layers_that_adapt_are_those_of_the_official_code():
    parts = ("layer4", "blocks.9", "blocks.10", "blocks.11", "norm.")
    adapts = [name for name in LAYERS if name != "norm" and not any(part in name for part in parts)]
    skip = composed(["method=sar"]).method.skip
    for prefix in ("backbone.network.", "backbone."):  # of timm and torchvision, of networks made here
        found = affine_parameters(nested([prefix + name for name in LAYERS]), skip)
        assert list(found) == [f"{prefix}{name}.{kind}" for name in adapts for kind in ("weight", "bias")]
    assert "layers.1.downsample.norm" in adapts
    assert not any("downsample" in name for name in affine_parameters(nested(LAYERS), ["norm"]))  # the other choice


def test_the_vit_of_torchvision_keeps_what_that_of_timm_keeps():
    network = torchvision.models.VisionTransformer(32, 16, num_layers=12, num_heads=1, hidden_dim=4, mlp_dim=4)
    wrapped = nn.ModuleDict({"network": network})
    every, found = affine_parameters(wrapped), affine_parameters(wrapped, composed(["method=sar"]).method.skip)
    blocks = {int(name.split("encoder_layer_")[1].split(".")[0]) for name in found}
    assert blocks == set(range(9))
    assert len(every) - len(found) == 2 * (3 * 2 + 1)
