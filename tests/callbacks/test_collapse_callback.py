"""The callback beside real runs: it disturbs nothing, sees what a direct computation sees, and loses no epoch."""

import csv

import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback
from safetensors.torch import load_file

from fisherexp.callbacks.neural_collapse import Look, NeuralCollapse
from fisherexp.config.explain import composed
from fisherexp.contract.method import StopAfter, Stopped
from fisherexp.experiment import run_experiment
from fisherexp.metrics.channels import LAMBDAS, outward
from fisherexp.metrics.neural_collapse import ClassMoments, collapse
from fisherexp.runs.workbench import Workbench

SMALL = [
    "scenario=none",
    "method=mixup",
    "callbacks=[]",
    "model.width=4",
    "data.train_size=150",
    "training.epochs=3",
    "progress=off",
    "checkpoint_every=0",
]
WATCHED = [
    "callbacks=[neural_collapse,reliability]",
    "callbacks.neural_collapse.epochs=[1]",
    "callbacks.neural_collapse.pairs=40",
    "callbacks.neural_collapse.points=50",
]


def run(folder, *overrides, callbacks=()):
    cfg = composed([*SMALL, *overrides, f"output_dir={folder}"])
    record = run_experiment(cfg, folder / "run", [], callbacks)
    return record, load_file(folder / "run" / "weights.safetensors")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    return folder, *run(folder, *WATCHED)


def test_it_disturbs_nothing(watched, tmp_path):
    _, record, weights = watched
    plain_record, plain = run(tmp_path)
    assert all(torch.equal(plain[name], weights[name]) for name in weights)
    metrics = [{k: v for k, v in r["metrics"]["after"].items() if k != "seconds"} for r in (record, plain_record)]
    assert metrics[0] == metrics[1]


def test_files(watched):
    folder = watched[0] / "run"
    rows = list(csv.DictReader((folder / "neural_collapse.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "3"]
    channels = list(csv.DictReader((folder / "channels.csv").open()))
    assert [float(row["lambda"]) for row in channels] == [*LAMBDAS, *LAMBDAS]
    for name in ("projection", "collapse", "channels", "reliability"):
        assert Image.open(folder / f"{name}.png").size[0] > 300
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(folder / "projection.gif").n_frames == 2


def test_what_it_saw_of_the_final_model_is_what_a_direct_computation_gives(watched):
    folder, _, weights = watched
    bench = Workbench(composed([*SMALL, f"output_dir={folder}"]))
    model, images = bench.method("method").model, bench.data.train
    model.load_state_dict(weights)
    model.eval()
    with torch.no_grad():
        features = model.features(images.inputs)
        logits = model.head(features)
    moments = ClassMoments(10, features.shape[1])
    moments.update(features, images.targets)
    seen = load_file(folder / "run" / "neural_collapse.safetensors")
    for name, value in collapse(moments, model.head.weight, model.head.bias).items():
        assert seen[f"clean/{name}"][-1].item() == pytest.approx(value, rel=1e-4), name
    accuracy = 100 * (logits.argmax(1) == images.targets).double().mean().item()
    assert seen["clean/accuracy"][-1].item() == pytest.approx(accuracy)


def test_every_epoch_shows_the_same_mixtures(watched):
    seen = load_file(watched[0] / "run" / "neural_collapse.safetensors")
    for name in ("classes", "same_class", "pairs", "lambda"):
        first, last = seen[f"picture/{name}"]
        assert torch.equal(first, last), name
    assert not torch.equal(*seen["picture/different"])


def test_features_of_a_linear_network_are_convex_combinations():
    """Of pixels: components along the rows are linear in λ."""
    bench = Workbench(composed(["scenario=none", "method=mixup", "model=mlp", "model.hidden=[]"]))
    options = NeuralCollapse([], pairs=50, points=50)
    look = Look(options, bench.method("method").eval(), bench.setting.loader("train", shuffle=True))
    found = look.everything()
    lam = torch.tensor(LAMBDAS, dtype=torch.float64)[:, None]
    along = found["channels"][:, 3:5]
    torch.testing.assert_close(along, lam * along[-1] + (1 - lam) * along[0], rtol=0, atol=1e-5)
    assert outward(found["channels"]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_only_in_train_mode_a_mixture_depends_on_those_beside_it(mode):
    """Statistics of the batch at hand know its size, stored ones do not."""
    bench = Workbench(composed([*SMALL, "data.train_size=60"]))
    method, loader = bench.method("method").eval(), bench.setting.loader("train", shuffle=True)
    looks = [NeuralCollapse([], pairs=10, points=20, bn_mode=mode, batch_size=size) for size in (40, 7)]
    whole, parts = (Look(options, method, loader).everything()["picture/same"] for options in looks)
    assert torch.allclose(whole, parts, atol=1e-5) == (mode == "eval")


def test_a_resumed_run_has_every_look(watched, tmp_path):
    """Stopped in the second epoch, after the look at the first."""
    with pytest.raises(Stopped):
        run(tmp_path, *WATCHED, callbacks=[StopAfter(batches=5)])
    run(tmp_path, *WATCHED)
    before = load_file(watched[0] / "run" / "neural_collapse.safetensors")
    after = load_file(tmp_path / "run" / "neural_collapse.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


class Peek(Callback):
    """Looks at the end of the fit with options of its own, once for each BatchNorm mode and layer."""

    def on_train_epoch_end(self, trainer, module):
        state = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
        modes = [m.training for m in module.model.modules()]
        rng = torch.get_rng_state()
        self.found = {
            (mode, layer): Look(
                NeuralCollapse([], pairs=30, points=30, bn_mode=mode, layer=layer), module, trainer.train_dataloader
            ).everything()
            for mode, layer in (("train", 0), ("eval", 0), ("eval", 1))
        }
        assert torch.equal(rng, torch.get_rng_state())
        assert modes == [m.training for m in module.model.modules()]
        assert all(torch.equal(state[name], tensor) for name, tensor in module.model.state_dict().items())


def test_modes_and_layers_change_what_they_should(tmp_path):
    """BatchNorm's mode only the picture, the layer only mixtures; neither the model, its modes or the generator."""
    peek = Peek()
    run(tmp_path, "training.epochs=1", callbacks=[peek])
    train, evaluated, hidden = peek.found.values()
    differ = lambda one, other: {name for name in one if not torch.equal(one[name], other[name])}  # noqa: E731
    assert differ(train, evaluated) == {"picture/same", "picture/different"}
    changed = differ(evaluated, hidden)
    assert {"picture/same", "picture/different", "channels", "same_class/nc1"} <= changed
    assert not any(name.startswith("clean/") for name in changed)
    for column in (0, -1):  # λ = 0 and λ = 1 mix nothing, wherever
        torch.testing.assert_close(evaluated["channels"][column], hidden["channels"][column])
    pairs, same = evaluated["picture/pairs"], evaluated["picture/same_class"]
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(pairs.flatten().tolist()) | set(same.tolist()) == {0, 1, 2}


def test_wrong_options_are_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^neural_collapse.classes=\[0, 1, 1\]: three different ones below 10"):
        run(tmp_path, *WATCHED, "callbacks.neural_collapse.classes=[0,1,1]")
    with pytest.raises(ValueError, match=r"^callbacks=reliability needs a scenario that evaluates by calibration"):
        run(tmp_path, "scenario=class_forgetting", "callbacks=reliability")
