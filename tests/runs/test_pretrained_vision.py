"""The normalization of pretrained weights in a run: in keys, in the record, under tables; another is another result."""

import pytest
import torch

from fisherexp.config.explain import composed, explain
from fisherexp.experiment import run_experiment
from fisherexp.ranks import say_once
from fisherexp.reports.caption import caption
from fisherexp.runs.identity import identity, run_folder
from fisherexp.runs.workbench import Workbench

OWN, OTHER = ["model.mean=[0.5]", "model.std=[0.5]"], ["model.mean=[0.4]", "model.std=[0.5]"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights of timm's test_resnet, which is trained with mean 0.5 and standard deviation 0.5."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), file)
    return file


@pytest.fixture
def make(weights, tmp_path):
    def compose(*options):
        model = ["model=timm", "model.name=test_resnet", f"model.weights={weights}", "model.resize=16"]
        small = ["data=digits", "data.train_size=40", "method=full", "method.finetune.epochs=0", "training.epochs=1"]
        quiet = ["progress=off", "threads=1", f"output_dir={tmp_path / 'outputs'}"]
        return composed([*small, *model, *quiet, *options])

    return compose


def test_other_constants_are_another_source_and_said(make, capsys):
    say_once.cache_clear()
    found = {}
    for name, options in {"weights'": [], "written out": OWN, "other": OTHER}.items():
        bench = Workbench(make("source=pretrained", *options))
        found[name] = bench.reference("source").key
        assert ("model.mean, model.std" in capsys.readouterr().err) == (name == "other")
    assert found["weights'"] == found["written out"] != found["other"]
    assert identity(make("source=pretrained", *OTHER)) != identity(make("source=pretrained"))


def test_what_is_trained_on_from_them_is_another_artefact(make):
    keys = [Workbench(make("source=trained", *options)).reference("source").key for options in ([], OTHER)]
    assert keys[0] != keys[1]


def test_a_checkpoint_with_constants_of_its_own_keeps_them_and_says_so(make, tmp_path, capsys):
    say_once.cache_clear()
    state = Workbench(make("source=pretrained")).reference("source").tensors
    torch.save(state, tmp_path / "whole.pt")
    for options, said in (([], False), (OWN, False), (OTHER, True)):
        found = Workbench(make("source=checkpoint", f"source.path={tmp_path / 'whole.pt'}", *options))
        assert torch.equal(found.reference("source").tensors["mean"], state["mean"])
        line = "file whole.pt: images are normalized as these weights say, not by model.mean and model.std"
        assert (line in capsys.readouterr().err) == said


def test_record_and_caption_name_weights_and_constants(make):
    cfg = make("source=pretrained")
    folder = run_folder(cfg)
    folder.mkdir(parents=True)
    record = run_experiment(cfg, folder, [])
    text = (
        "timm test_resnet (mine.pth), with its head; images normalized by mean 0.500, std 0.500, resized to 16 pixels"
    )
    assert record["pretrained"]["text"] == text
    assert record["pretrained"]["mean"] == [0.5] * 3
    origin = record["source"]["origin"]
    assert origin["weights"]["trained_with"]["size"] == 160
    assert origin["model"]["weights"][0] == "mine.pth"  # and a hash of its content
    assert any(line == f"pretrained: {text}" for line in caption([record], ["seed"], [], None))


def test_weights_in_a_file_count_by_content(make, weights, tmp_path):
    other = tmp_path / "mine.pth"
    state = torch.load(weights, weights_only=True)
    torch.save(state, other)
    assert identity(make()) == identity(make(f"model.weights={other}"))
    torch.save({name: tensor + 1 for name, tensor in state.items()}, other.with_name("changed.pth"))
    other.with_name("changed.pth").rename(other)
    from fisherexp.content import look_again

    look_again()
    assert identity(make()) != identity(make(f"model.weights={other}"))


def test_a_trained_head_leaves_the_features_as_they_came(make, capsys):
    options = ("source=trained_head", "source.training.epochs=3")
    bench = Workbench(make(*options))
    trained, came = bench.reference("source").tensors, Workbench(make("source=pretrained")).reference("source").tensors
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, came[name])}
    assert moved == {"head.weight", "head.bias"}
    assert Workbench(make(*options)).reference("source").built is False


def test_a_trained_head_needs_weights_to_stand_on():
    found = explain(["method=full", "source=trained_head", "model=mlp"])
    assert [(p.option, p.nearest) for p in found] == [
        ("source=trained_head", "model=torchvision model.pretrained=true")
    ]
