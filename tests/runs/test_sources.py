"""Where weights come from: what is taken, what is refused in one line, and that content and not names decides."""

import copy
import json
import pickle
import shutil
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fisherexp.config.explain import composed, explain
from fisherexp.content import look_again
from fisherexp.experiment import run_experiment
from fisherexp.reports.summary import source_line
from fisherexp.runs.identity import identity, run_folder
from fisherexp.runs.workbench import Workbench

SMALL = [
    "method=full",
    "data=digits",
    "model=mlp",
    "model.hidden=[8]",
    "training.epochs=1",
    "progress=off",
    "threads=1",
]
SMALL += ["method.finetune.epochs=1"]


@pytest.fixture
def make(tmp_path):
    """A config with outputs of its own; without the options of fine-tuning where another method is chosen."""

    def compose(*options):
        chosen = [line for line in SMALL if not ("method=erm" in options and line.startswith("method"))]
        return composed([*chosen, f"output_dir={tmp_path / 'outputs'}", *options])

    return compose


@pytest.fixture
def network(make):
    """A network like the run's, of other weights."""
    model = Workbench(make("source=trained")).classifier("elsewhere")
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def from_file(make, path, *options) -> tuple[dict, dict]:
    """(weights, what is said of them) of a checkpoint."""
    found = Workbench(make("source=checkpoint", f"source.path='{path}'", *options)).reference("source")
    return found.tensors, found.about


def prefixed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


FORMS = {
    "plain.pt": lambda model: model.state_dict(),
    "state_dict.pth": lambda model: {"state_dict": model.state_dict(), "epoch": 3},
    "lightning.ckpt": lambda model: {
        "state_dict": prefixed(model.state_dict(), "model."),
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}],
    },
    "parallel.pt": lambda model: {"model": prefixed(model.state_dict(), "module.")},
}


@pytest.mark.parametrize("name", FORMS)
def test_a_checkpoint_however_it_is_wrapped(name, make, network, tmp_path):
    torch.save(FORMS[name](network), tmp_path / name)
    weights, about = from_file(make, tmp_path / name)
    assert all(torch.equal(tensor, network.state_dict()[n]) for n, tensor in weights.items())
    assert about["new"] == []
    assert about["origin"] == {"text": f"file {name}", "file": name}


def test_safetensors(make, network, tmp_path):
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    weights, _ = from_file(make, tmp_path / "weights.safetensors")
    assert all(torch.equal(tensor, network.state_dict()[n]) for n, tensor in weights.items())


def test_a_backbone_alone_leaves_the_head_new(make, network, tmp_path):
    torch.save(network.backbone.state_dict(), tmp_path / "backbone.pt")
    weights, about = from_file(make, tmp_path / "backbone.pt")
    assert about["new"] == ["mean", "std", "head.weight", "head.bias"]
    assert torch.equal(weights["backbone.layers.1.weight"], network.backbone.layers[1].weight)
    fresh = Workbench(make("source=trained")).classifier("source").state_dict()
    assert torch.equal(weights["head.weight"], fresh["head.weight"])


class Opaque:
    """Something other than tensors."""


def write_bad(kind: str, path, network) -> str:
    """Writes a bad file; returns words of the line that is expected."""
    state = network.state_dict()
    if kind == "another shape":
        torch.save(state | {"backbone.layers.1.weight": torch.ones(9, 64)}, path)
        return "the weights do not fit this model: nothing for backbone.layers.1.weight"
    if kind == "another model":
        torch.save({"encoder.weight": torch.ones(2)}, path)
        return "nothing for backbone.layers.1.weight, backbone.layers.1.bias"
    if kind == "no tensors":
        torch.save({"epoch": 3}, path)
        return "holds no tensors by name"
    if kind == "a list":
        torch.save([torch.ones(2)], path)
        return "holds a list, not tensors by name"
    if kind == "a text":
        path.write_text("no weights at all")
        return "no checkpoint of tensors"
    if kind == "a pickle":
        path.write_bytes(pickle.dumps(state))
        return "no checkpoint of tensors"
    if kind == "a whole module":
        torch.save(Opaque(), path)
        return "holds other Python objects, which are not loaded"
    assert kind == "cut off"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:500])
    return "no file of torch"


BAD = ["another shape", "another model", "no tensors", "a list", "a text", "a pickle", "a whole module", "cut off"]


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_checkpoint_of_this_model_is_refused_in_one_line(kind, make, network, tmp_path):
    expected = write_bad(kind, tmp_path / "bad.pt", network)
    with pytest.raises(ValueError, match=f"^source.path={tmp_path}/bad.pt: ") as error:
        from_file(make, tmp_path / "bad.pt")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pickle_is_never_run(make, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="no checkpoint of tensors"):
        from_file(make, tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_no_safetensors_is_one_line(make, tmp_path):
    (tmp_path / "bad.safetensors").write_text("nothing of the kind")
    with pytest.raises(ValueError, match="no file of safetensors") as error:
        from_file(make, tmp_path / "bad.safetensors")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused_before_data_are_read_and_its_neighbor_named(tmp_path):
    torch.save({}, tmp_path / "weights.pt")
    line = [*SMALL, "source=checkpoint", "source.path=weight.pt", f"data.root={tmp_path}"]
    (problem,) = explain(line)
    assert str(problem).startswith("source.path: 'weight.pt': there is no such file in ")
    assert problem.nearest == "source.path=weights.pt"
    line[-2] = "source.path=weights.pt"  # in the data folder
    assert explain(line) == []


def test_a_method_that_starts_from_scratch_does_not_look_for_a_source():
    assert explain(["method=erm", "source=checkpoint", "source.path=nowhere.pt"]) == []


def test_same_content_same_key_and_changed_content_another(make, network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "a.pt")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "b.pt")
    shutil.copy(tmp_path / "a.pt", tmp_path / "copy.pt")

    def names(name):
        cfg = make("source=checkpoint", f"source.path={tmp_path / name}")
        return Workbench(cfg).reference("source").key, identity(cfg)

    key, run = names("a.pt")
    assert names("copy.pt") == (key, run)
    assert names("b.pt")[0] == key  # the same weights, wrapped
    with torch.no_grad():
        network.head.bias[0] += 1
    torch.save(network.state_dict(), tmp_path / "a.pt")  # the same size
    look_again()
    changed = names("a.pt")
    assert changed[0] != key
    assert changed[1] != run


# --- pretrained --------------------------------------------------------------------------------------------


TINY = '''
from torch import nn

from fisherexp.models.backbone import Backbone


class Tiny(Backbone):
    """Comes with weights and with a head, as a model from a hub does."""

    requires = ("floats",)

    def __init__(self, pretrained: bool = False, *, input_shape) -> None:
        super().__init__()
        self.layer, self.pretrained, self.num_features = nn.Linear(64, 3), pretrained, 3
        if pretrained:
            nn.init.constant_(self.layer.weight, 0.25)

    def initialize(self, head: nn.Linear) -> None:
        if self.pretrained:
            nn.init.constant_(head.weight, 0.5)

    def forward(self, x):
        return self.layer(x.flatten(1))
'''


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Puts a config's model in the place of one from a hub, which no test reaches."""
    (tmp_path / "tiny_models.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)

    def use(cfg, **options):
        cfg = copy.deepcopy(cfg)
        cfg.model = {"_target_": "tiny_models.Tiny", **options}
        return cfg

    yield use
    sys.modules.pop("tiny_models", None)


def test_pretrained_takes_what_came_with_the_model(make, tiny):
    found = Workbench(tiny(make("source=pretrained"), pretrained=True)).reference("source")
    assert (found.tensors["backbone.layer.weight"] == 0.25).all()
    assert (found.tensors["head.weight"] == 0.5).all()
    assert found.about["origin"]["text"] == "weights that came with the model"


@pytest.mark.parametrize("options", [{"pretrained": False}, {}])
def test_pretrained_of_a_model_without_weights_is_refused(options, make, tiny):
    with pytest.raises(ValueError, match="needs a model that comes with weights"):
        Workbench(tiny(make("source=pretrained"), **options)).reference("source")


@pytest.mark.parametrize(
    ("model", "nearest"),
    [("mlp", "model=torchvision model.pretrained=true"), ("torchvision", "model.pretrained=true")],
)
def test_pretrained_is_refused_before_data_are_read(model, nearest):
    found = explain(["method=full", "source=pretrained", f"model={model}"])
    assert [(p.option, p.nearest) for p in found] == [("source=pretrained", nearest)]
    assert explain(["method=full", "source=pretrained", "model=torchvision", "model.pretrained=true"]) == []


# --- another run -------------------------------------------------------------------------------------------


@pytest.fixture
def made(make):
    """(config, folder, record) of a run that is done."""
    cfg = make("method=erm")
    folder = run_folder(cfg)
    folder.mkdir(parents=True)
    record = run_experiment(cfg, folder, [])
    (folder / "run.json").write_text(json.dumps(record))
    return cfg, folder, record


def of_run(make, run, *options):
    return Workbench(make("source=run", f"source.run='{run}'", *options)).reference("source")


def test_a_run_by_folder_or_by_the_beginning_of_its_hash(make, made):
    _, folder, record = made
    found = [of_run(make, run) for run in (folder, folder.name, folder.name[:4])]
    assert len({each.key for each in found}) == 1
    origin = found[0].about["origin"]
    assert origin["run"] == record["identity"] == folder.name
    assert origin["text"] == f"run {folder.name} (erm on digits, mlp)"
    names = [identity(make("source=run", f"source.run='{run}'")) for run in (folder, folder.name, folder.name[:4])]
    assert len(set(names)) == 1


def test_a_run_that_is_made_anew_with_other_weights_is_another_source(make, made):
    _, folder, _ = made
    before, name = of_run(make, folder).key, identity(make("source=run", f"source.run={folder}"))
    weights = {n: t + 1 for n, t in of_run(make, folder).tensors.items()}
    save_file(weights, folder / "weights.safetensors")
    look_again()
    assert of_run(make, folder).key != before
    assert identity(make("source=run", f"source.run={folder}")) != name


def test_runs_that_are_not_there_not_done_or_several_are_one_line_before_data_are_read(make, made, tmp_path):
    _, folder, _ = made

    def problem(run):
        line = [*SMALL, f"output_dir={tmp_path / 'outputs'}", "source=run", f"source.run='{run}'"]
        found = explain(line)
        assert len(found) <= 1
        return str(found[0]) if found else ""

    assert problem(folder.name) == ""
    assert problem("zzz").startswith(f"source.run: 'zzz': no run in {tmp_path / 'outputs'} with a hash that begins so")
    shutil.copytree(folder, folder.parent / f"{folder.name[:4]}aaaaaaaa")
    assert "2 runs in " in problem(folder.name[:4])
    (folder / "run.json").unlink()
    assert f"{folder} is not done" in problem(folder)
    with pytest.raises(ValueError, match=rf"^source.run={folder}: .* is not done"):
        of_run(make, folder)


def test_a_run_of_another_model_is_one_line(make, made):
    with pytest.raises(ValueError, match=r"^source.run=.*the weights do not fit this model: nothing for") as error:
        of_run(make, made[1], "model.hidden=[9]")
    assert "\n" not in str(error.value)


# --- trained on other data ---------------------------------------------------------------------------------


def test_trained_on_other_data_with_fewer_classes_has_a_new_head(make):
    other = Workbench(make("source.data=digits_parity"))
    found, own = other.reference("source"), Workbench(make("source=trained")).reference("source")
    assert found.about["new"] == ["head.weight", "head.bias"]
    assert found.tensors["head.weight"].shape == own.tensors["head.weight"].shape
    assert not torch.equal(found.tensors["backbone.layers.1.weight"], own.tensors["backbone.layers.1.weight"])
    there = other.on_data("source.data")
    trained = there.trained("source.method")
    assert trained.tensors["head.weight"].shape == (2, 8)
    assert torch.equal(found.tensors["backbone.layers.1.weight"], trained.tensors["backbone.layers.1.weight"])


def test_data_of_another_shape_are_refused_before_training(make, monkeypatch):
    monkeypatch.setattr(Workbench, "trained", lambda *given, **options: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match=r"^source.data: the weights do not fit this model: .*inputs differ"):
        Workbench(make("source.data=colored_digits")).reference("source")


def test_the_record_and_the_reader_are_told_what_it_was_and_what_was_new(make, tmp_path):
    cfg = make("source.data=digits_parity")
    record = run_experiment(cfg, tmp_path / "run", [])
    source = record["source"]
    assert (source["kind"], source["new"]) == ("trained", ["head.weight", "head.bias"])
    assert source["weights"] == Workbench(cfg).reference("source").key
    assert source_line(record).startswith("trained on digits(superclasses=")
    assert source_line(record).endswith("; new: head.weight, head.bias")
    json.dumps(source)
    own = run_experiment(make("source=trained"), tmp_path / "own", [])
    assert own["source"]["origin"] == {}
    assert source_line(own) is None
    assert source_line({}) is None  # a record from before
    scratch = run_experiment(make("method=erm"), tmp_path / "scratch", [])
    assert scratch["source"] is None
