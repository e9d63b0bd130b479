"""Low-rank layers: the same function before, merged and unmerged; FWSVD and SVD on digits; a stop in fine-tuning."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fisherexp.adapters import AdaptedLayer, merge
from fisherexp.contract.method import StopAfter, Stopped
from fisherexp.methods.compression.factorization import factorize

LAYERS = [
    (nn.Linear(7, 5), torch.randn(3, 7)),
    (nn.Linear(7, 5, bias=False), torch.randn(3, 2, 7)),
    (nn.Conv2d(4, 5, 3, stride=2, padding=1), torch.randn(2, 4, 9, 9)),
    (nn.Conv2d(4, 5, 2, dilation=2, bias=False), torch.randn(2, 4, 9, 9)),
]


@pytest.mark.parametrize(("layer", "x"), LAYERS)
def test_factorized_it_changes_nothing_and_merged_it_is_unmerged(layer, x):
    model = nn.Sequential(layer, nn.ReLU())
    before = model(x)
    layers = factorize(model, 3, 1.0)
    assert torch.equal(model(x), before)
    (adapter,) = layers["0"].adapters
    nn.init.normal_(adapter.up)
    nn.init.normal_(adapter.down)
    unmerged = model(x)
    assert not torch.allclose(unmerged, before)
    merge(model)
    assert model[0] is layer
    assert not isinstance(layer, AdaptedLayer)
    torch.testing.assert_close(model(x), unmerged, atol=1e-4, rtol=1e-4)


def test_ratio_and_rank_say_how_many_weights_the_factors_hold():
    for n, m, ratio in [(64, 64, 0.33), (10, 300, 0.5), (4, 4, 0.01)]:
        layer = factorize(nn.Sequential(nn.Linear(m, n)), None, ratio)["0"]
        rank = len(layer.adapters[0].down)
        assert rank == 1 or rank * (n + m) <= ratio * n * m
        assert (rank + 1) * (n + m) > ratio * n * m
    assert factorize(nn.Sequential(nn.Linear(6, 4)), 9, 1.0)["0"].adapters[0].up.shape == (4, 4)


def test_head_grouped_and_frozen_layers_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv2d(4, 4, 3, groups=2))
    model.head = nn.Linear(4, 2)
    model[1].requires_grad_(False)
    assert list(factorize(model, 2, 1.0)) == ["0"]
    assert isinstance(model[0], AdaptedLayer)
    with pytest.raises(ValueError, match="no linear or convolutional layer besides its head"):
        factorize(nn.Sequential(nn.ReLU()), 2, 1.0)


METHODS = ["svd", "fwsvd"]
UNTUNED = "method.finetune.epochs=0"


@pytest.mark.parametrize("method", METHODS)
def test_weights_have_the_rank_asked_for_and_the_rest_stays(compressed, method):
    fit, source = compressed(method, "method.rank=5", UNTUNED)
    after = fit.model.state_dict()
    for name in source:
        low = name in ("backbone.layers.1.weight", "backbone.layers.3.weight")
        assert torch.equal(after[name], source[name]) != low
        assert not low or torch.linalg.matrix_rank(after[name], atol=1e-4) == 5
    assert fit.outcome["rank_by_layer"] == {"backbone.layers.1": 5, "backbone.layers.3": 5}
    assert fit.outcome["weights"] == 64 * 16 + 16 * 16
    assert fit.outcome["factor_weights"] == 5 * (64 + 16 + 16 + 16)
    lost = sum((after[n] - source[n]).square().sum().item() for n in source)
    assert fit.outcome["squared_error"] == pytest.approx(lost, rel=1e-3)


def test_fisher_weights_cost_reconstruction(compressed):
    """The point of the paper: another error is made small than that of the matrix."""
    plain = compressed("svd", "method.rank=5", UNTUNED)[0].outcome["squared_error"]
    for axis in ("out", "in", "two_sided"):
        assert compressed("fwsvd", "method.rank=5", f"method.axis={axis}", UNTUNED)[0].outcome["squared_error"] > plain


@pytest.mark.parametrize("method", METHODS)
def test_full_rank_is_the_source(compressed, method):
    fit, source = compressed(method, "method.rank=16", UNTUNED)
    for name, tensor in fit.model.state_dict().items():
        torch.testing.assert_close(tensor, source[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_finetuning_trains_the_factors_and_keeps_the_rank(compressed, method, tmp_path):
    fit, _ = compressed(method, "method.rank=5", "method.finetune.epochs=2")
    untuned, _ = compressed(method, "method.rank=5", UNTUNED)
    weight = fit.model.backbone.layers[3].weight
    assert torch.linalg.matrix_rank(weight, atol=1e-4) == 5
    assert not torch.allclose(weight, untuned.model.backbone.layers[3].weight, atol=1e-3)
    fit.leave_files(tmp_path)
    left = load_file(tmp_path / "factors.safetensors")
    torch.testing.assert_close(left["backbone.layers.3.left"] @ left["backbone.layers.3.right"], weight)


VIT = ["model=vit_tiny", "model.dim=12", "model.depth=2", "model.heads=2"]


@pytest.mark.parametrize("method", [*METHODS, "lq_lora"])
def test_a_transformer_is_factorized_throughout(compressed, method):
    fit, source = compressed(method, "method.rank=3", UNTUNED, model=VIT)
    after = fit.model.state_dict()
    changed = {name for name in source if not torch.equal(after[name], source[name])}
    linear = ("query", "key", "value", "out", "mlp.0", "mlp.2")
    layers = {
        f"backbone.blocks.{block}.{'' if 'mlp' in name else 'attention.'}{name}" for block in (0, 1) for name in linear
    }
    assert changed == {f"{name}.weight" for name in layers | {"backbone.embed"}}
    assert set(fit.outcome["rank_by_layer"]) == layers | {"backbone.embed"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Options of a small language model on a folder with some text."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text("to be or not to be, that is the question. " * 60)
    data = [
        "data=tiny_shakespeare",
        f"data.root={folder}",
        "data.path=text.txt",
        "data.context=8",
        "data.batch_size=16",
    ]
    return [*data, "model=char_gpt", "model.dim=12", "model.depth=1", "model.heads=2", "training.lr=0.01"]


@pytest.mark.parametrize("method", [*METHODS, "lq_lora"])
def test_a_language_model_with_its_head_tied_is_factorized_and_trained(compressed, text, method):
    untuned, source = compressed(method, "method.rank=3", UNTUNED, model=text)
    tuned, _ = compressed(method, "method.rank=3", "method.finetune.epochs=1", model=text)
    after, trained = untuned.model.state_dict(), tuned.model.state_dict()
    assert len(untuned.outcome["rank_by_layer"]) == 6
    for name in untuned.outcome["rank_by_layer"]:
        assert not torch.equal(after[f"{name}.weight"], source[f"{name}.weight"])
        assert not torch.equal(trained[f"{name}.weight"], after[f"{name}.weight"])
    assert torch.equal(after["backbone.tokens.weight"], source["backbone.tokens.weight"])
    assert tuned.model.head.weight is tuned.model.backbone.tokens.weight


@pytest.mark.parametrize("method", ["fwsvd", "diagonal_fisher_pruning", "magnitude_pruning"])
def test_stopped_in_finetuning_it_ends_where_an_undisturbed_fit_does(compressed, method, tmp_path):
    """The contract stops within the look."""
    options = ["method.finetune.epochs=2", "method.finetune.lr=0.01", "checkpoint_every=0"]
    options += ["method.sparsities=[0.5,0.8]"] if "pruning" in method else ["method.rank=5"]
    undisturbed, _ = compressed(method, *options)
    with pytest.raises(Stopped):
        compressed(method, *options, folder=tmp_path, callbacks=[StopAfter(20)])
    assert (tmp_path / "last.ckpt").is_file()
    resumed, _ = compressed(method, *options, folder=tmp_path)
    for name, tensor in undisturbed.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert resumed.outcome == undisturbed.outcome
