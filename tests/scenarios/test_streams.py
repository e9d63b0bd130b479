"""What streams are made of, and that they are the same for everyone."""

import re

import pytest
import torch
from hydra.utils import instantiate
from pytorch_lightning import Trainer

from fisherexp.config.explain import composed, explain
from fisherexp.config.validate import validate
from fisherexp.data.corruptions import BENCHMARK, corrupt
from fisherexp.data.digits import Digits
from fisherexp.methods.method import ModelMethod
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.runs.store import ArtefactStore
from fisherexp.scenarios import streams
from fisherexp.scenarios.setting import Segment
from fisherexp.scenarios.streams import RAMP
from fisherexp.seeds import generator

PAIR = ["fog", "contrast"]
PROTOCOLS = [
    streams.ResetEachShift,
    streams.Continual,
    streams.Lifelong,
    streams.Gradual,
    streams.MixedDomains,
    streams.Correlated,
    streams.MixedCorrelated,
    streams.Episodic,
    streams.SingleImage,
]
FREE, FROZEN = Segment(), Segment(adapt=False)


@pytest.fixture(scope="module")
def data():
    return Digits().load()


def clean_images(data, count=None, seed=0):
    return data.test.subset(torch.randperm(len(data.test), generator=generator("stream", seed))[:count])


def same_bag(one, other):
    """The same images with the same labels, in any order."""
    bags = [torch.cat([s.inputs.flatten(1), s.targets[:, None]], 1).tolist() for s in (one, other)]
    return sorted(bags[0]) == sorted(bags[1])


def test_continual_is_the_corruptions_in_order(data):
    setting = streams.Continual(images=40).setting(data, seed=0)
    clean = clean_images(data, 40)
    assert setting.evaluated == BENCHMARK
    assert setting.segments == (FREE,) * 15
    assert setting.stream_batch_size == 64
    for name in ("gaussian_noise", "fog"):
        assert torch.equal(setting.parts[name].inputs, corrupt(clean.inputs, name, 5))
        assert torch.equal(setting.parts[name].targets, clean.targets)


@pytest.mark.parametrize(
    ("protocol", "segment"),
    [(streams.ResetEachShift, Segment(reset="before")), (streams.Episodic, Segment(reset="each_batch"))],
)
def test_resets(data, protocol, segment):
    setting = protocol(PAIR, images=20).setting(data, 0)
    assert (setting.evaluated, setting.segments) == (("fog", "contrast"), (segment, segment))


def test_clean_images_in_between(data):
    online = streams.Continual(PAIR, images=20, clean="online").setting(data, 0)
    assert online.evaluated == ("fog", "clean", "contrast", "clean")
    assert online.segments == (FREE,) * 4
    frozen = streams.Continual(PAIR, images=20, clean="frozen").setting(data, 0)
    assert frozen.evaluated == ("clean", "fog", "clean", "contrast", "clean")
    assert frozen.segments == (FROZEN, FREE, FROZEN, FREE, FROZEN)
    assert same_bag(frozen.parts["clean"], clean_images(data, 20))
    rounds = streams.Lifelong(2, corruptions=PAIR, images=20, clean="frozen").setting(data, 0)
    assert rounds.evaluated == ("clean", *PAIR, "clean", *PAIR, "clean")


def test_gradual_goes_up_and_down(data):
    setting = streams.Gradual("mildest", corruptions=["contrast"], images=20).setting(data, 0)
    assert setting.evaluated == tuple(f"contrast_{severity}" for severity in RAMP)
    for severity in range(1, 6):
        expected = corrupt(clean_images(data, 20).inputs, "contrast", severity)
        assert torch.equal(setting.parts[f"contrast_{severity}"].inputs, expected)
    found = setting.evaluation()
    for stretch, wrong in enumerate(range(9)):
        labels = torch.zeros(8, dtype=torch.int64)
        logits = torch.eye(2)[(torch.arange(8) < wrong).long()]
        found.update(stretch, logits, labels)
    assert found.compute()["error/contrast"] == pytest.approx(50)  # of all severities together: 36 of 72
    assert found.compute()["mean_error_at_5"] == pytest.approx(50)  # the fifth of nine: 4 of 8


def test_gradual_begins_at_the_worst_as_cottas_code_does(data):
    setting = streams.Gradual(corruptions=PAIR, images=20).setting(data, 0)
    assert setting.evaluated == tuple([f"fog_{s}" for s in (5, 4, 3, 2, 1)] + [f"contrast_{s}" for s in RAMP])
    found = setting.evaluation()
    for stretch, name in enumerate(setting.evaluated):
        wrong = {"fog_5": 1, "contrast_5": 3}.get(name, 8)
        found.update(stretch, torch.eye(2)[(torch.arange(8) < wrong).long()], torch.zeros(8, dtype=torch.int64))
    assert found.compute()["mean_error_at_5"] == pytest.approx(25)  # 1 and 3 of 8
    assert "mean_error_at_5" in found.headings
    assert "mean_error_at_5" not in streams.Continual(PAIR, images=20).setting(data, 0).evaluation().headings


def test_rottas_stream_and_marsdens(data):
    rotta = instantiate(composed(["method=erm", "scenario=correlated_rotta"]).scenario, _convert_="all")
    assert (rotta.sampler, rotta.delta, rotta.batch_size) == ("rotta", 0.1, 64)
    assert rotta.corruptions[:3] == ["motion_blur", "snow", "fog"]
    assert sorted(rotta.corruptions) == sorted(BENCHMARK)
    sorted_by_label = streams.Correlated(0, corruptions=PAIR, images=100).setting(data, 0)
    for name in PAIR:
        assert torch.equal(sorted_by_label.parts[name].targets, clean_images(data, 100).targets.sort().values)
    mixed = streams.MixedCorrelated(corruptions=PAIR).setting(data, 0)  # at the published concentration, 0.01
    labels = mixed.parts["mixed"].targets
    assert (labels[1:] == labels[:-1]).double().mean() > 0.95


@pytest.mark.parametrize("protocol", [streams.MixedDomains, streams.MixedCorrelated])
def test_mixed_streams_know_the_domain_of_each_image(data, protocol):
    setting = protocol(corruptions=PAIR, images=200).setting(data, 0)
    assert setting.evaluated == ("mixed",)
    mixed, metric = setting.parts["mixed"], setting.evaluation()
    domain = metric.domain_mixed
    assert len(mixed) == 400
    for number, name in enumerate(PAIR):
        clean = clean_images(data, 200)
        expected = type(clean)(corrupt(clean.inputs, name, 5), clean.targets)
        assert same_bag(mixed.subset(torch.nonzero(domain == number).flatten()), expected)
    assert 0.3 < (domain[1:] != domain[:-1]).double().mean() < 0.7  # they alternate at random


def test_correlated_streams_are_correlated(data):
    plain = streams.Continual(PAIR).setting(data, 0)
    setting = streams.Correlated(0.1, corruptions=PAIR).setting(data, 0)
    for name in PAIR:
        assert same_bag(setting.parts[name], plain.parts[name])
        shares = [
            (s.parts[name].targets[1:] == s.parts[name].targets[:-1]).double().mean().item() for s in (plain, setting)
        ]
        assert shares[0] < 0.2
        assert shares[1] > 0.8
    assert not torch.equal(setting.parts["fog"].targets, setting.parts["contrast"].targets)
    assert setting.about["classes_per_batch"] < 4 < 8 < plain.about["classes_per_batch"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_stream_for_all_seeds_of_a_run(data, protocol):
    def made(seed, own):
        setting = protocol(corruptions=PAIR, images=100, seed=own).setting(data, seed)
        return setting.evaluated, [setting.checksum(part) for part in setting.evaluated]

    assert made(0, 0) == made(1, 0)
    assert made(0, 0) != made(0, 1)


@pytest.mark.parametrize("size", [64, 7])
def test_a_stream_shorter_than_a_batch_is_evaluated_whole(data, size):
    setting = streams.Continual(PAIR, images=10, batch_size=size).setting(data, 0)
    sizes = [batch.size for batch in setting.loader("fog", batch_size=setting.stream_batch_size)]
    assert sizes == ([10] if size == 64 else [7, 3])


def test_single_images_come_with_a_window(data):
    setting = streams.SingleImage(16, corruptions=PAIR, images=10).setting(data, 0)
    assert (setting.stream_batch_size, setting.window) == (1, 16)


def test_the_test_loop_follows_the_stream(data):
    """Evaluated through Lightning as a run does it: errors equal those of one forward pass over each part."""
    setting = streams.Continual(PAIR, images=50, clean="frozen", batch_size=16).setting(data, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = MLP([8], input_shape=data.input_shape)
        method = ModelMethod(Classifier(backbone, backbone.num_features, 10, data.mean, data.std))
    method.evaluate(setting)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    loaders = [setting.loader(part, batch_size=setting.stream_batch_size) for part in setting.evaluated]
    trainer.test(method, loaders, verbose=False)
    found = method.evaluation.compute()
    for number, name in enumerate(setting.evaluated):
        part = setting.parts[name]
        error = 100 * (method.model(part.inputs).argmax(1) != part.targets).double().mean().item()
        assert found[f"curve/{number:03d}_{name}"] == pytest.approx(error)


def test_generated_images_are_kept(data, tmp_path):
    store = ArtefactStore(tmp_path)
    first = streams.Continual(PAIR, images=30).setting(data, 0, store)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert len(files) == 2
    again = streams.MixedDomains(PAIR, images=30).setting(data, 1, store)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")} == files
    assert len(again.parts["mixed"]) == 60
    kept = streams.Continual(PAIR, images=30).setting(data, 0, store)
    assert all(torch.equal(kept.parts[name].inputs, first.parts[name].inputs) for name in PAIR)
    streams.Continual(PAIR, severity=4, images=30).setting(data, 0, store)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 598}, "scenario.images=598, but the test set has only 597 images"),
        ({"corruptions": []}, "at least one, and each only once"),
        ({"corruptions": ["fog", "fog"]}, "at least one, and each only once"),
    ],
)
def test_streams_that_cannot_be(data, options, message):
    with pytest.raises(ValueError, match=message):
        streams.Continual(**options).setting(data, 0)


def test_an_unknown_corruption_names_the_nearest():
    (problem,) = explain(["method=erm", "scenario=continual", "scenario.corruptions=[fog,gausian_noise]"])
    assert problem.nearest == "scenario.corruptions=[fog,gaussian_noise]"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_has_a_config(protocol):
    """Valid as it stands, with the defaults of the class (and the batch size of single images)."""
    name = re.sub("(?<!^)(?=[A-Z])", "_", protocol.__name__).lower()
    config = composed(["method=erm", f"scenario={name}"])
    assert validate(config) == []
    made = instantiate(config.scenario, _convert_="all")
    assert type(made) is protocol
    different = {"clean"} if protocol is streams.Lifelong else set()
    assert {key for key, value in vars(protocol()).items() if vars(made)[key] != value} == different
