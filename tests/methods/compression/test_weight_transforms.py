"""Weights stored in less, layer by layer: what runs on digits store, report and compute with."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fisherexp.contract.method import StopAfter, Stopped
from fisherexp.methods.compression.rtn import RTN
from fisherexp.methods.compression.sparsity import row_mask
from fisherexp.methods.compression.svdquant import SVDQuant, exponents, smoothing
from fisherexp.methods.compression.weight_transform import in_blocks
from fisherexp.quantization import BlockByBlock, Factored, LayerStats, fake_quantize, load, psd_root, weighted_low_rank

LAYERS = ["backbone.layers.1", "backbone.layers.3"]
ROUNDED = ["method.bits=2", "method.group=16"]
SAME_GRID = [*ROUNDED, "method.grid=symmetric_full"]
CORRECTED = ["zeroquant_v2", "lqer", "qera_approx", "qera_exact", "eora", "kfac_low_rank", "fisher_low_rank", "loftq"]
OF_EORA = ["method.compressor=rtn", "method.sequential=false"]


@pytest.fixture(scope="module")
def transformed(compressed):
    """The method after its fit, and the state it began with; each run is made once."""
    made = {}

    def run(method, *overrides, **options):
        key = method, overrides, str(options)
        if key not in made:
            made[key] = compressed(method, *overrides, **options)
        return made[key]

    return run


def options_of(method: str) -> list[str]:
    return [*SAME_GRID, "method.rank=4", *(OF_EORA if method == "eora" else [])]


def errors(fit) -> list[float]:
    return [layer["output_error"] for layer in fit.outcome["layers"].values()]


@pytest.mark.parametrize("method", CORRECTED)
def test_no_other_factors_lose_less_of_the_outputs_than_qera_exact(transformed, method):
    best = errors(transformed("qera_exact", *options_of("qera_exact"))[0])
    plain = errors(transformed("rtn", *SAME_GRID)[0])
    for found, least, uncorrected in zip(errors(transformed(method, *options_of(method))[0]), best, plain, strict=True):
        assert least <= found * (1 + 1e-3)  # factors are of 16 bits
        assert least < uncorrected / 2


def test_qera_exact_is_eora_on_the_same_statistics(transformed):
    one, other = (transformed(name, *options_of(name))[0] for name in ("qera_exact", "eora"))
    for name in LAYERS:
        torch.testing.assert_close(
            one.stored[name].weight(), other.stored[name].weight(), atol=2e-3, rtol=2e-3, check_dtype=False
        )
        assert one.stored[name].rank == 4
    assert errors(one) == pytest.approx(errors(other), rel=1e-3)


@pytest.mark.parametrize("method", ["rtn", "eora", "svd_llm", "wanda", "svdquant"])
def test_the_file_holds_the_model_and_is_as_large_as_is_said(transformed, method, tmp_path):
    fit, source = transformed(method)
    fit.leave_files(tmp_path)
    stored = load(tmp_path / "quantized.safetensors")
    after = fit.model.state_dict()
    assert list(stored) == LAYERS
    for name, found in stored.items():
        assert torch.equal(after[f"{name}.weight"], found.weight().float())
    changed = {name for name in source if not torch.equal(after[name], source[name])}
    assert changed == {f"{name}.weight" for name in LAYERS}
    held = sum(t.numel() * t.element_size() for t in load_file(tmp_path / "quantized.safetensors").values())
    assert fit.outcome["metrics"]["stored_bytes"] == held
    assert fit.outcome["metrics"]["effective_bits"] == 8 * held / (64 * 16 + 16 * 16)


def test_effective_bits_are_those_of_the_formula(transformed):
    fit, _ = transformed("qera_exact", *options_of("qera_exact"))
    factors = 16 * 4 * (64 + 16 + 16 + 16) / (64 * 16 + 16 * 16)
    assert fit.outcome["metrics"]["effective_bits"] == pytest.approx(2 + 16 / 16 + factors)
    mx, _ = transformed("qera_exact", *ROUNDED, "method.rank=4")
    assert mx.outcome["metrics"]["effective_bits"] == pytest.approx(2 + 8 / 16 + factors)
    pruned, _ = transformed("two_four_pruning")
    assert pruned.outcome["metrics"]["effective_bits"] == 9
    assert pruned.outcome["metrics"]["weight_bits"] == 16


@pytest.mark.parametrize("sequential", [False, True])
def test_the_error_is_that_of_the_outputs_and_order_is_as_it_is_said(fitted, sequential):
    """Against the layers' outputs for the calibration images, in the untouched or the compressed model."""
    fit, source, bench = fitted("gptq", "method.bits=2", f"method.sequential={sequential}", "method.samples=90")
    loaders, _ = fit.to_look_at(bench.setting)
    assert fit.outcome["samples"] == 90
    x = torch.cat([fit.model.normalize(batch.inputs).flatten(1) for batch in loaders[0]])
    assert len(x) == 90
    x = x.double()
    for name in LAYERS:
        before, after = source[f"{name}.weight"].double(), fit.model.get_submodule(name).weight.detach().double()
        error = ((x @ (before - after).T).square().sum() / (x @ before.T).square().sum()).sqrt().item()
        assert fit.outcome["layers"][name]["output_error"] == pytest.approx(error, rel=1e-5)
        x = (x @ (after if sequential else before).T + source[f"{name}.bias"].double()).relu()


DEEP_VIT = ["model=vit_tiny", "model.dim=16", "model.depth=3", "model.heads=2"]
IN_ORDER = ["method.bits=3", "method.group=16", "method.samples=120", "data.batch_size=32", "checkpoint_every=0"]


@pytest.mark.parametrize("stop", [2, 7, 9])
def test_a_transformer_goes_from_block_to_block_as_from_the_start_and_after_a_stop(
    compressed, monkeypatch, tmp_path, stop
):
    """Four batches a look: stopped in the first look, in the second, in the third."""
    began = []
    monkeypatch.setattr(BlockByBlock, "_recording", recorded(BlockByBlock._recording, began))
    fit, _ = compressed("gptq", *IN_ORDER, model=DEEP_VIT)
    # The patches' layer is no link of the chain.
    assert [len(fit.blocks), *began] == [4, *4 * [0], *4 * [1]]
    with pytest.raises(Stopped):
        compressed("gptq", *IN_ORDER, model=DEEP_VIT, folder=tmp_path, callbacks=[StopAfter(stop)])
    resumed, _ = compressed("gptq", *IN_ORDER, model=DEEP_VIT, folder=tmp_path)
    monkeypatch.setattr(BlockByBlock, "run", lambda self, block, batch, inputs: self.model(inputs))
    whole, _ = compressed("gptq", *IN_ORDER, model=DEEP_VIT)
    for other in (resumed, whole):
        for name, tensor in fit.model.state_dict().items():
            assert torch.equal(tensor, other.model.state_dict()[name]), name
        assert other.outcome["layers"] == fit.outcome["layers"]
    assert whole.outcome["metrics"]["peak_mib"] < fit.outcome["metrics"]["peak_mib"]


def recorded(recording, began):
    """It, which leaves the block that a pass from the start is for."""

    def made(self, wanted, batch):
        began.append(wanted)
        return recording(self, wanted, batch)

    return made


def test_layers_of_a_block_are_together():
    names = ["embed", "blocks.0.attention.query", "blocks.0.mlp.2", "blocks.1.mlp.0", "layers.1", "layers.3", "7"]
    blocks = {"embed": names[:1], "blocks.0": names[1:3], "blocks.1": names[3:4]}
    assert in_blocks(names) == blocks | {name: [name] for name in names[4:]}


def test_both_sides_of_kfac_lower_its_quadratic_model(transformed):
    """tr(G Δ A Δᵀ) of the factors that the method was given."""
    fits = {name: transformed(name, *options_of(name))[0] for name in ("kfac_low_rank", "qera_exact", "zeroquant_v2")}
    factors, source = fits["kfac_low_rank"].given["kfac"].factors, transformed("rtn", *SAME_GRID)[1]
    for name in LAYERS:
        weight = source[f"{name}.weight"].double()
        a, b = factors[f"{name}.weight"].a.double()[:-1, :-1], factors[f"{name}.weight"].b.double()
        model = {}
        for method, fit in fits.items():
            lost = weight - fit.stored[name].weight()
            model[method] = ((b @ lost @ a) * lost).sum().item()
        assert model["kfac_low_rank"] <= min(model.values()) * (1 + 1e-3)
        assert model["kfac_low_rank"] < 0.9 * model["zeroquant_v2"]


def test_the_fisher_of_both_sides_is_what_its_factors_are_weighted_by(transformed):
    fits = {name: transformed(name, *options_of(name))[0] for name in ("fisher_low_rank", "zeroquant_v2")}
    source = transformed("rtn", *SAME_GRID)[1]
    for name in LAYERS:
        fisher = fits["fisher_low_rank"].given["fisher"][f"{name}.weight"].double()
        weights = fisher.mean(1, keepdim=True) * fisher.mean(0, keepdim=True)
        lost = {m: (source[f"{name}.weight"].double() - fit.stored[name].weight()).square() for m, fit in fits.items()}
        assert (weights * lost["fisher_low_rank"]).sum() < (weights * lost["zeroquant_v2"]).sum()


def test_eora_brings_back_what_any_compressor_loses(transformed):
    for compressor in ("rtn", "gptq", "two_four", "wanda", "sparsegpt"):
        options = [*SAME_GRID, "method.sequential=false", f"method.compressor={compressor}"]
        bare, whole = (transformed("eora", *options, f"method.rank={rank}")[0] for rank in (0, 4))
        assert max(a / b for a, b in zip(errors(whole), errors(bare), strict=True)) < 0.75, compressor
        assert bare.stored[LAYERS[0]].rank == 0
        if compressor not in ("rtn", "gptq"):
            zeros = bare.stored[LAYERS[0]].weight().view(16, 16, 4) == 0
            assert (zeros.sum(-1) >= 2).all()
    both, _ = transformed("eora", *options, "method.rank=0", "method.quantize_kept=true")
    scales = 16 * (16 * 32 / 16 + 16)  # of sixteen kept weights, and of the eight of a row of the second layer
    assert both.outcome["metrics"]["effective_bits"] == 2 / 2 + 2 / 2 + scales / (64 * 16 + 16 * 16)
    assert (both.stored[LAYERS[0]].weight().view(16, 16, 4) == 0).sum(-1).min() >= 2


def test_wanda_compares_within_a_row(transformed):
    fit, source = transformed("wanda", "method.pattern=unstructured", "method.sparsity=0.3", "method.sequential=false")
    zeros = fit.stored[LAYERS[0]].weight() == 0
    assert (zeros.sum(1) == int(0.3 * 64)).all()
    kept = source[f"{LAYERS[0]}.weight"].half().float()
    assert torch.equal(fit.stored[LAYERS[0]].weight().float(), kept * ~zeros)
    assert row_mask(torch.tensor([[3.0, 1, 1, 2]]), 0.5).tolist() == [[True, False, False, True]]


def test_svd_llm_has_the_share_of_weights_it_should(transformed):
    fit, _ = transformed("svd_llm", "method.ratio=0.5")
    ranks = [layer["rank"] for layer in fit.outcome["layers"].values()]
    assert ranks == [math.floor(0.5 * 64 * 16 / 80), math.floor(0.5 * 16 * 16 / 32)]
    assert fit.outcome["metrics"]["effective_bits"] == 16 * sum(
        rank * width for rank, width in zip(ranks, (80, 32), strict=True)
    ) / (64 * 16 + 16 * 16)


OUTLIERS = torch.arange(6) * 20


@pytest.fixture(scope="module")
def layer():
    """A layer of 128 inputs, six of them fifty times as large as the others and their weights as much smaller."""
    torch.manual_seed(0)
    weight, rows = torch.randn(96, 128).double(), torch.randn(400, 128).double().relu()
    weight[:, OUTLIERS] /= 50
    rows[:, OUTLIERS] *= 50
    stats = LayerStats(128, keep=400)
    stats.add(rows.float())
    return weight, rows, stats


def of_svdquant(layer, cls=SVDQuant, **options) -> tuple[float, object]:
    """Relative error of outputs, W4A4 in groups of 64."""
    weight, rows, stats = layer
    always = {"bits": 4, "group": 64, "grid": "symmetric_restricted", "activation_bits": 4}
    always |= {"samples": 1, "exclude": None, "max_width": 200}
    if cls is SVDQuant:
        always |= {"rank": 8, "steps": 20, "iterations": 100, "rows": 400}
    host = nn.Linear(128, 96, bias=False)
    stored = cls(nn.Sequential(host), **always | options).compress("0", weight, stats)
    made = Factored(host.double(), stored, 4, 64)
    wanted = rows @ weight.T
    return ((made(rows) - wanted).norm() / wanted.norm()).item(), stored


def test_svdquant_takes_up_outliers_that_neither_smoothing_nor_a_branch_does_alone(layer):
    rounded, _ = of_svdquant(layer, RTN)
    smoothed, _ = of_svdquant(layer, rank=0)
    branched, _ = of_svdquant(layer, steps=1)
    both, _ = of_svdquant(layer)
    assert both < smoothed < rounded / 3
    assert both < branched
    assert both < rounded / 5


def test_svdquant_without_smoothing_and_branch_is_rounding(layer):
    assert of_svdquant(layer, rank=0, steps=1)[0] == pytest.approx(of_svdquant(layer, RTN)[0], rel=1e-6)
    whole, stored = of_svdquant(layer, rank=96)
    assert whole < 2e-3  # factors are of 16 bits
    assert stored.rank == 96


def test_smoothing_changes_no_output_and_the_branch_comes_first(layer):
    weight, rows, stats = layer
    scales = smoothing(stats.largest, weight, 0.5, 0.5)
    torch.testing.assert_close((rows / scales) @ (weight * scales).T, rows @ weight.T)
    assert len(exponents(20)) == 39
    assert torch.equal(smoothing(torch.tensor([0.0, 4]), torch.ones(1, 2), 0.5, 0.0), torch.tensor([1.0, 2.0]).double())
    assert torch.equal(smoothing(torch.ones(2), torch.zeros(1, 2), 0.5, 0.5), torch.ones(2).double())
    _, stored = of_svdquant(layer, steps=1, iterations=1)
    up, down = weighted_low_rank(weight, 8)
    torch.testing.assert_close(stored.up.double() @ stored.down.double(), up @ down, atol=2e-3, rtol=2e-3)


def test_a_run_of_svdquant_computes_with_rounded_activations(transformed):
    fit, _ = transformed("svdquant")
    layer = fit.model.get_submodule(LAYERS[1])
    assert isinstance(layer, Factored)
    x = torch.rand(5, 16)
    stored = fit.stored[LAYERS[1]]
    smooth = x / stored.smooth
    wanted = fake_quantize(smooth, 4, 64) @ stored.quantized().float().T + layer.bias
    torch.testing.assert_close(layer(x), wanted + smooth @ (stored.up.float() @ stored.down.float()).T)
    assert fit.outcome["metrics"]["activation_bits"] == 4
    rounded, weights_alone = (transformed("rtn", f"method.activation_bits={bits}")[0] for bits in ("2", "null"))
    assert all(one > other for one, other in zip(errors(rounded), errors(weights_alone), strict=True))


def test_lqer_takes_the_largest_mean_of_a_batch_or_the_mean_of_all(transformed):
    options = options_of("lqer")
    faithful, everything = (
        transformed("lqer", *options, f"method.mean={mean}")[0] for mean in ("largest_batch", "all")
    )
    assert not torch.equal(faithful.stored[LAYERS[0]].down, everything.stored[LAYERS[0]].down)
    stats = LayerStats(2)
    for rows in ([[2.0, 0], [0, 0]], [[0, 1.0]]):
        stats.add(torch.tensor(rows))
    faithful.mean = "largest_batch"
    assert faithful.roots("", stats)[0].root.tolist() == [1.0, 1.0]
    faithful.mean = "all"
    assert faithful.roots("", stats)[0].root.tolist() == pytest.approx([2 / 3, 1 / 3])
    faithful.mean = "largest_batch"


def test_loftq_says_what_each_iteration_loses(transformed):
    by_length = {n: transformed("loftq", *options_of("loftq"), f"method.iterations={n}")[0] for n in (1, 2, 4)}
    for name in LAYERS:
        layers = {n: fit.outcome["layers"][name] for n, fit in by_length.items()}
        for kind in ("output", "weight"):
            longest = layers[4][f"{kind}_errors"]
            assert len(longest) == 4
            for n, layer in layers.items():  # what shorter runs store
                assert layer[f"{kind}_errors"] == longest[:n]
                assert layer[f"{kind}_error"] == longest[n - 1]
            assert len(set(longest)) > 1


VIT = ["model=vit_tiny", "model.dim=12", "model.depth=2", "model.heads=2"]


@pytest.mark.parametrize("method", ["qera_exact", "kfac_low_rank", "gptq"])
def test_a_transformer_is_compressed_throughout(transformed, method):
    fit, source = transformed(method, model=VIT)
    linear = ("attention.query", "attention.key", "attention.value", "attention.out", "mlp.0", "mlp.2")
    layers = {f"backbone.blocks.{block}.{name}" for block in (0, 1) for name in linear} | {"backbone.embed"}
    assert set(fit.outcome["layers"]) == layers
    after = fit.model.state_dict()
    assert {name for name in source if not torch.equal(after[name], source[name])} == {f"{n}.weight" for n in layers}


def test_a_wide_layer_is_judged_by_its_diagonal_and_that_is_said_once(transformed, tmp_path, capsys):
    fit, _ = transformed("qera_exact", *options_of("qera_exact"), "method.max_width=16")
    assert fit.outcome["diagonal"] == [LAYERS[0]]
    fit.leave_files(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "more than method.max_width=16 inputs, judged by their diagonal alone: backbone.layers.1"
    approx, _ = transformed("qera_approx", *options_of("qera_approx"))
    torch.testing.assert_close(fit.stored[LAYERS[0]].weight(), approx.stored[LAYERS[0]].weight(), atol=2e-3, rtol=2e-3)
    whole, _ = transformed("qera_exact", *options_of("qera_exact"))
    assert not torch.allclose(whole.stored[LAYERS[0]].weight(), approx.stored[LAYERS[0]].weight(), atol=1e-2)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head, self.other = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False), nn.Linear(3, 3)
        self.head.weight = self.tokens.weight


def test_what_cannot_be_is_refused_in_one_line(compressed):
    always = {"bits": 2, "group": 2, "grid": "asymmetric", "activation_bits": None, "samples": 1, "max_width": 9}
    with pytest.raises(ValueError, match="head: the weight is another module's as well, leave it out by"):
        RTN(Tied(), exclude=None, **always)
    assert RTN(Tied(), exclude="^head$", **always).blocks == [["other"]]
    with pytest.raises(ValueError, match="grid=normal_float needs a number of weights that share a scale"):
        RTN(Tied(), exclude="^head$", **always | {"grid": "normal_float", "group": None})
    with pytest.raises(ValueError, match="nearest: symmetric_full"):
        compressed("gptq", "method.grid=normal_float", "method.group=16")
    pictures = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match="0: activations are rounded before linear layers alone"):
        RTN(pictures, exclude=None, **always | {"activation_bits": 4})
    assert RTN(pictures, exclude=None, **always).blocks == [["0", "2"]]
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    method = RTN(model, exclude=None, **always)
    method.watch(0).stats["0"] = LayerStats(3)
    with pytest.raises(ValueError, match="the model never calls 1: leave out by"):
        method.edit(0, 0)
    method.watch(0).look(torch.tensor([[1.0, 2.0, torch.inf]]))
    with pytest.raises(ValueError, match="inputs of 0 are not all finite"):
        method.edit(0, 0)
    assert psd_root(torch.zeros(2, 2)).inverse.tolist() == [[0, 0], [0, 0]]


def test_the_peak_counts_what_is_summed_up_and_what_compression_makes(transformed):
    """At least the second moments of 64 and 16 inputs and a weight in float64; exact factors need more than rounding;
    layers in order hold one second moment at a time."""
    peaks = {name: transformed(name)[0].outcome["metrics"]["peak_mib"] * 2**20 for name in ("rtn", "qera_exact")}
    assert peaks["rtn"] > 8 * (64 * 64 + 16 * 16 + 16 * 64)
    assert peaks["qera_exact"] > peaks["rtn"] + 8 * 64 * 64
    ordered = transformed("qera_exact", "method.sequential=true")[0].outcome["metrics"]["peak_mib"] * 2**20
    assert peaks["qera_exact"] - ordered == pytest.approx(8 * 16 * 16, abs=8 * 16 * 8)
