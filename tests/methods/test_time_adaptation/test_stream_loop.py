"""What holds for every test-time method: order of predicting and updating, resets, windows, refusals."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from fisherexp.methods.test_time_adaptation.anchor import AnchorImportance
from fisherexp.methods.test_time_adaptation.norms import affine_parameters
from fisherexp.models.classifier import Classifier
from fisherexp.models.resnet import ResNet18
from fisherexp.models.vit import ViT
from fisherexp.scenarios.setting import Segment

NORM_METHODS = ["tent", "eta", "eata", "sar", "rdumb", "roid"]
METHODS = [*NORM_METHODS, "source", "bn_adapt", "cotta", "rotta", "memo", "lame", "shot_im"]
# Enough to see them work, few enough for seconds; a learning rate that shows.
QUICK = {"cotta": ["views=2", "update.lr=0.05"], "memo": ["views=3"], "rotta": ["interval=16", "update.lr=0.05"]}
QUICK |= {name: ["update.lr=0.05"] for name in ("tent", "eta", "eata", "rdumb", "roid", "sar", "shot_im")}
NEVER, BEFORE, FROZEN = Segment(), Segment(reset="before"), Segment(adapt=False)


def options(name: str) -> list[str]:
    return QUICK.get(name, [])


def everything(method) -> dict:
    """All state of a method as tensors and plain containers."""
    networks = [copy.deepcopy(network.state_dict()) for network in method.networks()]
    optimizer = None if method.optimizer is None else copy.deepcopy(method.optimizer.state_dict())
    return {"networks": networks, "optimizer": optimizer, "state": copy.deepcopy(method.plain_state())}


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("name", METHODS)
def test_after_a_reset_all_is_as_at_the_start(make, stream, follow, name):
    method = make(name, *options(name))
    method.evaluate(stream(NEVER))
    start = everything(method)
    follow(method, stream(NEVER, images=100))
    moved = not same(everything(method), start)
    assert moved == (name not in ("source", "lame", "bn_adapt", "memo"))  # MEMO forgets after each image
    method.restart()
    assert same(everything(method), start)


@pytest.mark.parametrize("name", [*NORM_METHODS, "bn_adapt", "lame", "shot_im"])
def test_a_reset_stream_repeats_itself(make, stream, follow, name):
    """Two segments of the same images, reset in between, get the same logits, bit for bit; without, they do not."""
    consistent = ["consistency=false"] if name == "roid" else []  # the random numbers of views go on

    def logits(reset: str) -> list[torch.Tensor]:
        setting = stream(NEVER, Segment(reset=reset), images=100)
        setting.parts["noise_1"] = setting.parts["noise_0"]
        return follow(make(name, *options(name), *consistent), setting)

    first, second = torch.cat(logits("before")).chunk(2)
    assert torch.equal(first, second)
    first, second = torch.cat(logits("never")).chunk(2)
    assert torch.equal(first, second) == (name in ("bn_adapt", "lame"))


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_segment_leaves_all_state_alone(make, stream, follow, name):
    method = make(name, *options(name))
    follow(method, stream(NEVER, images=100))
    before, setting = everything(method), stream(FROZEN, images=100)
    method.setting = setting
    method.evaluation = setting.evaluation()
    for index, batch in enumerate(setting.loader("noise_0", batch_size=50)):
        method.test_step(batch, index, 0)
    assert same(everything(method), before)


@pytest.mark.parametrize("name", ["tent", "eta", "eata", "sar", "shot_im"])
def test_predicts_before_it_updates(make, stream, follow, name):
    """The logits are those of a forward pass with the parameters that earlier batches left."""
    method, setting = make(name, *options(name)), stream(NEVER, images=150)
    earlier = []
    adapt = method.adapt

    def watched(images):
        with torch.no_grad():
            earlier.append(method.model(images))
        return adapt(images)

    method.adapt = watched
    found = follow(method, setting)
    assert len(found) == 3
    assert all(torch.equal(one, other) for one, other in zip(found, earlier, strict=True))


@pytest.mark.parametrize("name", NORM_METHODS)
def test_only_affine_parameters_of_norms_change(make, stream, follow, name):
    method = make(name, *options(name))
    before = copy.deepcopy(method.model.state_dict())
    follow(method, stream(NEVER))
    after, affine = method.model.state_dict(), set(affine_parameters(method.model))
    assert not any("running" in key or "num_batches" in key for key in after)
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed
    assert changed <= affine
    assert method.outcome["distance"] > 0


@pytest.mark.parametrize("name", ["tent", "eta", "sar", "roid", "rdumb", "rotta"])
@pytest.mark.parametrize("norm", ["GroupNorm", "LayerNorm"])
def test_norms_that_look_at_one_image_adapt_from_the_source_model_on(make, stream, follow, norm, name):
    """Up to the first step the answers are those of the source model, for a batch of one as well."""
    torch.manual_seed(0)
    groups, layers = ResNet18(8, norm="group", input_shape=(1, 8, 8)), ViT(4, 24, 1, input_shape=(1, 8, 8))
    backbone = groups if norm == "GroupNorm" else layers
    model = Classifier(backbone, backbone.num_features, 10)
    options = ["update.lr=0.05", *(["e_margin=1.1"] if name in ("eta", "sar", "rdumb") else [])]  # untrained
    options += ["interval=20"] if name == "rotta" else ["prior_correction=none"] if name == "roid" else []
    options += ["skip=[]"] if name == "sar" else []
    setting = stream(NEVER, size=20, images=41)
    method = make(name, *options, model=model)
    found, expected = follow(method, setting), follow(make("source", model=model), setting)
    assert [len(logits) for logits in found] == [20, 20, 1]
    assert torch.equal(found[0], expected[0])
    assert not torch.equal(found[1], expected[1])
    before, after = model.state_dict(), method.model.state_dict()
    assert {key for key in after if not torch.equal(after[key], before[key])} <= set(affine_parameters(model))


@pytest.mark.parametrize("name", ["tent", "eta", "eata", "sar", "shot_im", "lame"])
def test_order_within_a_batch_does_not_matter(make, stream, follow, name):
    """Logits are equivariant, the update is invariant under permutation of a batch."""
    setting = stream(NEVER, images=50)
    shuffled = dataclasses.replace(setting, parts=dict(setting.parts))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    shuffled.parts["noise_0"] = setting.parts["noise_0"].subset(order)
    one, other = make(name, *options(name)), make(name, *options(name))
    (logits,), (permuted,) = follow(one, setting), follow(other, shuffled)
    torch.testing.assert_close(permuted, logits[order], rtol=1e-3, atol=2e-3)
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_a_window_predicts_the_newest_and_uses_each_image_in_one_update(make, stream, follow):
    method, setting = make("tent", "update.lr=0.05"), stream(NEVER, size=1, window=8, images=20)
    found = follow(method, setting)
    images = setting.parts["noise_0"].inputs
    reference = make("tent", "update.lr=0.05")
    reference.evaluate(setting)
    reference.count = reference.counts[0]
    for index in range(20):
        recent = images[max(0, index - 7) : index + 1]
        with torch.enable_grad():
            logits = reference.adapt(recent) if index % 8 == 7 else reference.predict(recent)
        assert torch.equal(found[index], logits[-1:].detach())
    assert method.outcome["updates"] == 2
    assert method.outcome["samples"] == 20


def test_a_window_holds_images_of_its_own_segment(make, stream, follow):
    """A method without state: what it answers in a segment does not depend on those before."""
    setting = stream(NEVER, NEVER, size=1, window=8, images=11)
    found = follow(make("bn_adapt", "mode=test"), setting)
    alone = dataclasses.replace(setting, evaluated=("noise_1",), segments=(NEVER,))
    again = follow(make("bn_adapt", "mode=test"), alone)
    assert all(torch.equal(one, other) for one, other in zip(found[11:], again, strict=True))
    assert not torch.equal(found[0], again[0])


@pytest.mark.parametrize("name", METHODS)
def test_a_stream_shorter_than_a_batch_is_one_batch(make, stream, follow, name):
    found = follow(make(name, *options(name)), stream(NEVER, size=64, images=7))
    assert [len(logits) for logits in found] == [7]


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_one_has_statistics_over_positions(make, stream, follow, name):
    found = follow(make(name, *options(name)), stream(NEVER, size=5, images=6))
    assert [len(logits) for logits in found] == [5, 1]


class Flat(nn.Module):
    """A classifier without spatial maps; its only norm, if any, is BatchNorm1d."""

    def __init__(self, norm: bool):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *([nn.BatchNorm1d(16)] if norm else []))
        self.head = nn.Linear(16, 10)

    def features(self, images):
        return self.backbone(images.float() / 255)

    def logits(self, features):
        return self.head(features)

    def forward(self, images):
        return self.logits(self.features(images))


@pytest.mark.parametrize("name", [*NORM_METHODS, "bn_adapt", "shot_im", "cotta"])
def test_a_batch_of_one_without_positions_is_refused_before_the_first_batch(make, stream, name):
    model = Flat(norm=True)
    if name == "eata":
        name = "eta"  # its Fisher is of another model
    method = make(name, *options(name), model=model)
    method.evaluate(stream(NEVER, size=5, images=10))
    with pytest.raises(ValueError, match=r"'noise_0' has a batch of a single image.*method=lame") as error:
        method.evaluate(stream(NEVER, size=5, images=11))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tent", "eta", "sar", "roid", "rdumb", "rotta", "bn_adapt"])
def test_a_model_without_norms_is_refused_with_methods_that_work(make, stream, name):
    with pytest.raises(ValueError, match=r"has none.*method=lame") as error:
        make(name, *options(name), model=Flat(norm=False)).evaluate(stream(NEVER))
    assert "\n" not in str(error.value)


def test_the_anchor_of_a_model_without_norms_is_refused_in_the_same_way():
    with pytest.raises(ValueError, match=r"has none.*method=lame") as error:
        AnchorImportance().accumulator(Flat(norm=False), seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lame", "shot_im", "cotta", "memo", "source"])
def test_the_methods_it_names_do_work_without_norms(make, stream, follow, name):
    found = follow(make(name, *options(name), model=Flat(norm=False)), stream(NEVER, images=20))
    assert len(found) == 1


def test_several_ranks_are_refused(make, stream):
    with pytest.raises(ValueError, match=r"trainer\.devices=1"):
        make("tent").evaluate(dataclasses.replace(stream(NEVER), world_size=2))


@pytest.mark.parametrize("name", METHODS)
def test_logits_that_are_not_finite_are_reported_by_place(make, stream, follow, name):
    method = make(name, *options(name))
    with torch.no_grad():
        method.model.head.bias[0] = float("nan")
    with pytest.raises(ValueError, match="batch 0 of 'noise_0' are not finite"):
        follow(method, stream(NEVER))


@pytest.mark.parametrize("name", METHODS)
def test_no_graph_outlives_its_batch(make, stream, follow, name):
    """Nothing that is kept, gradients included, depends on the images of earlier batches."""
    method = make(name, *options(name))
    follow(method, stream(NEVER, images=100))
    kept = [value for value in method.state.values() if isinstance(value, torch.Tensor)]
    parameters = [p for network in method.networks() for p in network.parameters()]
    assert not any(tensor.grad_fn or tensor.requires_grad for tensor in kept)
    assert all(p.grad is None and p.grad_fn is None for p in parameters)


@pytest.mark.parametrize("name", METHODS)
def test_what_it_leaves_loads_under_safe_defaults(make, stream, follow, tmp_path, name):
    method = make(name, *options(name))
    follow(method, stream(NEVER, images=100))
    method.leave_files(tmp_path)
    saved = torch.load(tmp_path / "adaptation.pt", weights_only=True)
    assert same(saved["state"], method.plain_state())


def test_counts_are_those_of_the_segments(make, stream, follow):
    method = make("eta", "update.lr=0.05")
    follow(method, stream(NEVER, FROZEN, BEFORE, images=120))
    segments = method.outcome["segments"]
    assert [s["samples"] for s in segments] == [120, 120, 120]
    assert segments[1]["updates"] == segments[1]["backward_samples"] == 0
    for name in ("samples", "forward_samples", "kept", "reliable", "updates"):
        assert method.outcome[name] == sum(s.get(name, 0) for s in segments)
    assert 0 < method.outcome["kept"] <= method.outcome["reliable"] <= 240
