"""What every fine-tuning method owes: which bytes move, by how much, how many numbers; merged, saved, gone on with."""

import copy
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback
from safetensors.torch import load_file

from fisherexp import adapters
from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment
from fisherexp.methods.finetuning.full import Full
from fisherexp.methods.finetuning.head_only import HeadOnly
from fisherexp.methods.recipe import Recipe
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.classifier import Classifier
from fisherexp.runs.finished import finished

HIDDEN = {"backbone.layers.1.weight": (16, 64), "backbone.layers.3.weight": (12, 16)}
HEAD = 5 * 12 + 5
R = 4
FACTORS = sum(R * (m + n) for m, n in HIDDEN.values())
ROWS = sum(m for m, _ in HIDDEN.values())
ALL = sum(m * n + m for m, n in HIDDEN.values()) + HEAD
COUNTS = {"lora": FACTORS, "rslora": FACTORS, "pissa": FACTORS, "dora": FACTORS + ROWS}
KRONECKER = 4 * (4 * 8 + 4 * 8) + 4 * (3 * 4 + 4 * 4)  # 16 = 4 · 4, 64 = 8 · 8; 12 = 3 · 4, 16 = 4 · 4
COUNTS |= {
    "miss": 8 * ROWS,
    "bat": R * ROWS,
    "adalora": sum(6 * (m + n + 1) for m, n in HIDDEN.values()),
    "sorsa": FACTORS + 2 * R,
    "soma": FACTORS + ROWS,  # with biases
    "ba_lora": FACTORS,
    "salt": 2 * (12 + 9) + 2 * R * (4 + 3),  # three quarters of 16 and 12 values
    "soka": KRONECKER,
    "random_mask": FACTORS,
    "magnitude_mask": FACTORS,
    "lift": FACTORS,
    "pst": sum((8 + 8 + 1) * (m + n) for m, n in HIDDEN.values()),
}
# What these train depends on the data or the weights.
MEASURED = ["eva", "svfit", "sara"]
ADAPTERS = [*COUNTS, *MEASURED]
METHODS = [*ADAPTERS, "full", "head_only"]
KNOWN_TO_PEFT = {"lora", "rslora", "dora", "pissa", "soma", "ba_lora", "eva", "adalora", "miss", "bat"}
NEAR = {"rtol": 1e-5, "atol": 1e-6}


TINY_VIT = ["model.patch=4", "model.dim=12", "model.depth=1", "training.epochs=1", "data.train_size=100"]


def state(method):
    return method.model.state_dict()


def moved(method, source) -> set[str]:
    return {name for name, tensor in state(method).items() if not torch.equal(tensor, source[name])}


def counted(method, source) -> int:
    """Of methods whose count is no formula of the shapes, from the adapters they left; of SaRA from the source."""
    if method.name == "sara":
        return HEAD + sum(int((source[name].abs() < method.own["threshold"]).sum()) for name in HIDDEN)
    left = {name.rpartition(".adapters.0.")[2]: [] for name in method.adapter_state}
    for name, tensor in method.adapter_state.items():
        left[name.rpartition(".adapters.0.")[2]].append(tensor.numel())
    return HEAD + sum(sum(left.get(name, [])) for name in ("down", "up", "values"))


@pytest.mark.parametrize("name", METHODS)
def test_which_bytes_move_and_how_many_numbers_are_trained(name, fitted, source):
    method = fitted(name)
    head = {"head.weight", "head.bias"}
    everything = {n for n in source if n.endswith(("weight", "bias"))}
    wanted = {"full": everything, "head_only": head, "soma": everything}.get(name, {*HIDDEN} | head)
    assert moved(method, source) == wanted
    metrics = method.outcome["metrics"]
    known = {"full": ALL, "head_only": HEAD} | {adapter: count + HEAD for adapter, count in COUNTS.items()}
    trained = known[name] if name in known else counted(method, source)
    assert metrics["trained_numbers"] == trained
    assert metrics["trained_share"] == pytest.approx(100 * trained / ALL)
    assert all(p.requires_grad for p in method.model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_the_record_holds_an_ordinary_model(name, fitted, source):
    method = fitted(name)
    assert {n: t.shape for n, t in state(method).items()} == {n: t.shape for n, t in source.items()}
    assert adapters.adapted_layers(method.model) == {}


@pytest.mark.parametrize("name", METHODS)
def test_the_relative_change_is_that_of_all_but_the_head(name, fitted, source):
    method = fitted(name)
    names = [n for n in source if n.startswith("backbone.")]
    before = torch.cat([source[n].double().flatten() for n in names])
    after = torch.cat([state(method)[n].double().flatten() for n in names])
    change = ((after - before).norm() / before.norm()).item()
    assert method.outcome["metrics"]["relative_change"] == pytest.approx(change, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("lora", R),
        ("rslora", R),
        ("pissa", 2 * R),
        ("dora", 16),
        ("miss", 8),
        ("adalora", 6),
        ("soma", 2 * R),
        ("sorsa", 2 * R),
    ],
)
def test_the_update_has_the_rank_it_may_have(name, bound, fitted, source):
    method = fitted(name)
    for weight in HIDDEN:
        values = torch.linalg.svdvals((state(method)[weight] - source[weight]).double())
        assert (values > 1e-5 * values[0]).sum() <= bound
    assert values[0] > 1e-3
    if name == "dora":  # control: a factor for each row leaves the rank of B A behind
        assert (values > 1e-5 * values[0]).sum() > R


@pytest.mark.parametrize("name", [n for n in ADAPTERS if n != "eva"])  # which first looks at the data
def test_before_the_first_step_the_outputs_are_the_sources(name, make_bench, tmp_path, source):
    bench = make_bench(name)
    method = bench.method("method")
    method.model.load_state_dict(source)
    images = bench.setting.parts["test"].inputs[:50]
    plain = method.model.eval()(images)
    method.source_loaded()
    assert len(adapters.adapted_layers(method.model)) == len(HIDDEN)
    torch.testing.assert_close(method.model(images), plain, **NEAR)


@pytest.mark.parametrize("name", [n for n in ADAPTERS if n not in ("eva", "soma")])  # soma: biases are left, too
def test_what_is_left_in_the_folder_fits_the_source_and_gives_the_same_outputs(name, make_bench, tmp_path, source):
    bench = make_bench(name)
    method, _ = finished(bench, tmp_path / "run")
    method.leave_files(tmp_path)
    other = bench.method("method")
    other.model.load_state_dict(source)
    other.source_loaded()
    saved = load_file(tmp_path / "adapter.safetensors")
    adapters.load_adapter_state_dict(other.model, saved)
    images = bench.setting.parts["test"].inputs
    torch.testing.assert_close(other.model.eval()(images), method.model.eval()(images), rtol=1e-4, atol=1e-5)
    layers = adapters.adapted_layers(other.model).values()
    factored = all(layer.factors() or layer.scaled_factors() for layer in layers)
    error = method.outcome["metrics"]["merge_error"]
    assert 0 < error < 1e-5 if factored else error == 0  # where W' is formed anyway, merging changes nothing
    assert all(torch.equal(p, source[n]) for n, p in other.model.named_parameters() if n in HIDDEN)


@pytest.mark.parametrize("name", ADAPTERS)
def test_peft_reads_what_is_left_for_it_and_gives_the_same_outputs(name, fitted, make_bench, source, tmp_path):
    """Onto the source's weights. What peft does not know is left in our format alone."""
    method = fitted(name)
    method.leave_files(tmp_path)
    assert (tmp_path / "peft").exists() == (name in KNOWN_TO_PEFT)
    if name in KNOWN_TO_PEFT:
        peft = pytest.importorskip("peft")
        bench = make_bench(name)
        model = bench.classifier("fresh")
        model.load_state_dict(source)
        theirs = peft.PeftModel.from_pretrained(model, tmp_path / "peft").eval()
        images = bench.setting.parts["test"].inputs
        torch.testing.assert_close(theirs(images), method.model.eval()(images), rtol=1e-6, atol=1e-5)
        assert theirs.peft_config["default"].target_modules == {f"backbone.layers.{place}" for place in (1, 3)}


@pytest.mark.parametrize("name", METHODS)
def test_a_spectral_report_starts_at_the_source_whatever_is_trained_beside_it(name, fitted, source):
    """Not at W' of an adapter, which of some is another matrix from the first on, and never at the end."""
    start = fitted(name).report.start
    assert {f"{layer}.weight" for layer in start} == {*HIDDEN}
    assert all(torch.equal(matrix, source[f"{layer}.weight"]) for layer, matrix in start.items())
    if name != "head_only":  # the control
        assert not any(torch.equal(matrix, state(fitted(name))[f"{layer}.weight"]) for layer, matrix in start.items())


@pytest.mark.parametrize("name", ["full", "head_only"])
def test_without_adapters_no_file_is_left(name, fitted, tmp_path):
    fitted(name).leave_files(tmp_path)
    assert not (tmp_path / "adapter.safetensors").exists()


class Stopped(Exception):
    pass


class StopAfter(Callback):
    def __init__(self, batches):
        self.left = batches

    def on_train_batch_end(self, *args):
        self.left -= 1
        if not self.left:
            raise Stopped


@pytest.mark.parametrize("name", ["lora", "dora", "pissa"])
def test_stopped_within_an_epoch_it_ends_bit_equal(name, make_bench, fitted, tmp_path):
    options = ("method.dropout=0.3", "method.head_lr=0.05", "checkpoint_every=0")
    whole = fitted(name, *options)
    with pytest.raises(Stopped):
        finished(make_bench(name, *options, callbacks=[StopAfter(3)]), tmp_path / "again", own=True)
    assert (tmp_path / "again" / "last.ckpt").is_file()
    resumed, _ = finished(make_bench(name, *options), tmp_path / "again")
    assert all(torch.equal(tensor, state(whole)[n]) for n, tensor in state(resumed).items())
    assert resumed.outcome == whole.outcome


OPTIONS = {
    "rank": "method.rank=2",
    "alpha": "method.alpha=3.0",
    "targets": "method.targets=layers.1",
    "targets, a list": "method.targets=[layers.3]",
    "exclude": "method.exclude='head|layers.3'",
    "by_layer": "method.by_layer={layers.3: {rank: 1}}",
    "trained": "method.trained=bias",
    "nothing beside": "method.trained=null",
    "dropout": "method.dropout=0.5",
    "head_lr": "method.head_lr=1e-3",
    "lr": "method.finetune.lr=1e-3",
    "epochs": "method.finetune.epochs=1",
    "weight_decay": "method.finetune.weight_decay=0.5",
    "optimizer": "method.finetune.optimizer=sgd",
    "schedule": "method.finetune.schedule=constant",
}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_option_changes_the_weights(option, fitted):
    plain, changed = state(fitted("lora")), state(fitted("lora", option))
    assert any(not torch.equal(tensor, plain[n]) for n, tensor in changed.items())


@pytest.mark.parametrize("option", [OPTIONS["rank"], OPTIONS["alpha"]])
@pytest.mark.parametrize("name", ["rslora", "dora", "pissa"])
def test_rank_and_scale_count_for_each_adapter(name, option, fitted):
    plain, changed = state(fitted(name)), state(fitted(name, option))
    assert any(not torch.equal(tensor, plain[n]) for n, tensor in changed.items())


@pytest.mark.parametrize("name", ["full", "head_only"])
@pytest.mark.parametrize("option", ["method.head_lr=1e-3", "method.finetune.lr=1e-3", "method.finetune.epochs=1"])
def test_every_option_of_the_baselines_changes_the_weights(name, option, fitted):
    plain, changed = state(fitted(name)), state(fitted(name, option))
    assert any(not torch.equal(tensor, plain[n]) for n, tensor in changed.items())


def test_features_once_train_the_same_head_and_go_through_the_network_once(make_bench, fitted, tmp_path):
    """A network that draws nothing has the same features in every pass."""
    bench = make_bench("head_only", "method.features=once")
    once, price = finished(bench, tmp_path)
    each = state(fitted("head_only"))
    assert all(torch.allclose(tensor, each[n], atol=1e-5) for n, tensor in state(once).items())
    samples = len(bench.setting.parts["train"])
    assert (price["forward_samples"], price["backward_samples"]) == (samples, 0)
    assert finished(make_bench("head_only"), tmp_path / "each")[1]["forward_samples"] == 2 * samples


def test_features_once_are_those_of_evaluation(make_bench, tmp_path):
    """BatchNorm and dropout as in evaluation: the head's inputs are the features that it meets there."""
    bench = make_bench("head_only", "method.features=once", "model=vit_tiny", "model.dropout=0.5", *TINY_VIT)
    method, _ = finished(bench, tmp_path)
    inputs = bench.setting.parts["train"].inputs[:5]
    expected = method.model.eval().features(inputs)
    torch.testing.assert_close(method.known[:5], expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(method.model.train().features(inputs), expected, atol=1e-2)


def test_the_methods_differ_and_the_same_one_does_not(fitted, make_bench, tmp_path):
    scaled = ("lora", "rslora", "dora", "pissa")
    options = {name: ["method.alpha=6.0"] if name in scaled else [] for name in ADAPTERS}
    found = {name: state(fitted(name, *options[name]))["backbone.layers.1.weight"] for name in ADAPTERS}
    names = [*found]
    assert not any(torch.equal(found[a], found[b]) for a in names for b in names if a < b)
    again = state(finished(make_bench("lora", "method.alpha=6.0"), tmp_path)[0])["backbone.layers.1.weight"]
    assert torch.equal(again, found["lora"])


def test_another_seed_draws_other_adapters(make_bench, tmp_path):
    drawn = [finished(make_bench("lora", f"seed={s}"), tmp_path / str(s))[0].adapter_state for s in (0, 1)]
    assert not torch.equal(*(each["backbone.layers.1.adapters.0.down"] for each in drawn))


@pytest.mark.parametrize("name", METHODS)
def test_no_epochs_leave_the_source_as_it_is(name, fitted, source):
    method = fitted(name, "method.finetune.epochs=0")
    assert moved(method, source) == set()
    assert adapters.adapted_layers(method.model) == {}


def test_the_head_has_a_rate_of_its_own(make_bench, source):
    bench = make_bench("lora", "method.head_lr=0.5", "method.finetune.lr=0.25", "method.finetune.schedule=constant")
    method = bench.method("method")
    method.model.load_state_dict(source)
    method.source_loaded()
    groups = method.configure_optimizers()["optimizer"].param_groups
    sizes = {group["lr"]: sum(p.numel() for p in group["params"]) for group in groups}
    assert sizes == {0.5: HEAD, 0.25: FACTORS}


def test_one_step_of_lora_is_the_papers_gradient(make_bench, source):
    """dB = α / r G Aᵀ and dA = 0 at the start, G = ∂L/∂W by autograd on the source."""
    bench = make_bench("lora")
    method, plain = bench.method("method").double(), bench.method("method").double()
    for each in (method, plain):
        each.model.load_state_dict(source)
    method.source_loaded()
    batch = next(iter(bench.setting.loader("train")))
    method.loss(batch).backward()
    plain.loss(batch).backward()
    for name, layer in adapters.adapted_layers(method.model).items():
        (adapter,) = layer.adapters
        gradient = plain.model.get_submodule(name).weight.grad
        torch.testing.assert_close(adapter.up.grad, 8.0 / R * gradient @ adapter.down.T)
        assert not adapter.down.grad.any()
        assert adapter.up.grad.any()


def test_penalty_and_hooks_of_an_adapter_are_called(make_bench, tmp_path, monkeypatch):
    """One that pulls B to ones by its penalty, and keeps count of the steps it is told of."""
    told = {"backward": [], "step": [], "gradients": []}

    class Watched(adapters.LoRA):
        def penalty(self):
            return 100 * (self.up - 1).square().sum()

        def after_backward(self, step, total):
            told["backward"].append((step, total))

        def after_step(self, step, total):
            told["step"].append((step, total))
            told["gradients"].append(self.up.grad is not None)

    from fisherexp.methods.finetuning.lora import LoRA

    options = ("method.targets=layers.3", "method.finetune.lr=0.1")
    plain, _ = finished(make_bench("lora", *options), tmp_path / "plain")
    monkeypatch.setattr(LoRA, "factors", partial(Watched))
    method, _ = finished(make_bench("lora", *options), tmp_path / "run")
    total = method.epochs * method.steps_per_epoch
    assert told["backward"] == told["step"] == [(step, total) for step in range(total)]
    assert all(told["gradients"])
    up = "backbone.layers.3.adapters.0.up"
    assert (method.adapter_state[up] - 1).abs().mean() < (plain.adapter_state[up] - 1).abs().mean() / 2


CNN = ["model=small_cnn", "model.width=8", "training.epochs=1", "method.finetune.epochs=1"]


@pytest.mark.parametrize(("name", "still"), [("lora", True), ("head_only", True), ("full", False)])
def test_batch_statistics_move_where_their_layer_is_trained(name, still, make_bench, tmp_path):
    options = [*CNN, *(["method.targets=convolution"] if name == "lora" else [])]
    bench = make_bench(name, *options)
    source = bench.reference("source").tensors
    method, _ = finished(bench, tmp_path / "run")
    statistics = [n for n in source if "running" in n]
    assert statistics
    assert all(torch.equal(state(method)[n], source[n]) == still for n in statistics)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("method.targets=nowhere", "matches no linear, convolutional or embedding layer"),
        ("method.by_layer={nowhere: {rank: 1}}", "'nowhere' matches none of the layers"),
        ("method.rank=13", "rank=13 is above 12"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line(option, message, fitted):
    with pytest.raises(ValueError, match=message) as error:
        fitted("pissa", option)
    assert "\n" not in str(error.value)


def test_the_run_says_what_it_started_from_and_what_it_trained(tmp_path):
    line = ["method=lora", "model.hidden=[16,12]", "training.epochs=1", "progress=off", f"output_dir={tmp_path}"]
    record = run_experiment(composed(line), tmp_path / "run", line)
    assert record["source"]["kind"] == "trained"
    assert record["source"]["origin"]["options"] == {"classes": [1, 3, 5, 7, 9]}
    assert record["source"]["new"] == []  # five classes there, too
    assert record["headings"]["trained_share"] == "trained %"
    assert record["metrics"]["after"]["trained_numbers"] == FACTORS + HEAD
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {"adapter.safetensors", "weights.safetensors"}


def test_options_for_what_is_not_there_are_refused(make_bench):
    def started(*options):
        method = make_bench(*options).method("method")
        method.source_loaded()
        return method.configure_optimizers()

    with pytest.raises(ValueError, match="'haed' is found in no name"):
        started("lora", "method.trained=haed")
    with pytest.raises(ValueError, match=r"method\.head_lr=0\.5: no parameter of the head alone is trained"):
        started("lora", "method.trained=null", "method.head_lr=0.5")
    started("lora", "method.trained=null")


@pytest.mark.parametrize(
    ("name", "by_layer", "message"),
    [
        ("lora", "{layer.9: {rank: 2}}", "'layer.9' matches none"),
        ("eva", "{layer.9: {alpha: 2.0}}", "'layer.9' matches none"),
        ("eva", "{layers: {rank: 2}}", "a layer's rank is what its explained variance says"),
        ("adalora", "{layers: {every: 2, rank: 7}}", "every are of all layers together"),
    ],
)
def test_what_layers_cannot_have_of_their_own_is_refused(name, by_layer, message, make_bench, tmp_path):
    with pytest.raises(ValueError, match=message):
        finished(make_bench(name, f"method.by_layer={by_layer}"), tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_the_token_embedding_has_no_rate_and_is_not_trained_alone(tied):
    network = Classifier(CharGPT(8, 1, 2, tied=tied, input_shape=(4,), vocabulary=5), 8, 5)
    for kind, options, message in (
        (Full, {"head_lr": 0.5}, "no parameter of the head alone"),
        (HeadOnly, {}, "no head"),
    ):
        method = kind(copy.deepcopy(network), Recipe(), **options)
        with pytest.raises(ValueError, match=message) if tied else nullcontext():
            method.source_loaded()
            method.configure_optimizers()
