"""LoKU: its importance of rows from the Fishers of both parts, its loss, and the adapters it begins with."""

import pytest
import torch
from tiny_tokens import FORGET, TokenNet, mean_of_tokens, rows_of, taught, token_batch

from fisherexp import adapters
from fisherexp.adapters import FILA
from fisherexp.config.explain import composed
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.unlearning.inverted_hinge import inverted_hinge
from fisherexp.methods.unlearning.loku import LoKU, row_importance
from fisherexp.runs.workbench import Workbench

BATCH = token_batch()
TINY = [
    "method=loku",
    "data=reports",
    "scenario=random_forgetting",
    "model.dim=8",
    "data.reports=60",
    "data.test_reports=8",
    "training.epochs=1",
]


@pytest.mark.parametrize("relative", [False, True])
def test_a_row_counts_by_the_ratio_of_the_fishers(relative):
    forget, retain = torch.rand(4, 3), torch.rand(4, 3) * 1e-4
    epsilon = 0.1 * retain.mean().item() if relative else 0.1
    pairs = [zip(*rows, strict=True) for rows in zip(forget, retain, strict=True)]
    expected = [sum(f / (r + epsilon) for f, r in row) ** 0.5 for row in pairs]
    torch.testing.assert_close(row_importance(forget, retain, 0.1, relative), torch.stack(expected).double())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    lines = [*TINY, f"output_dir={tmp_path_factory.mktemp('loku')}", "progress=off", "threads=1", "trainer=cpu"]
    return Workbench(composed(lines))


def test_fishers_are_those_of_the_parts_at_the_source(bench):
    """Squared gradients of the mean losses of batches of four, each part by itself."""
    source, method = bench.reference("source"), bench.method("method")
    model = bench.classifier("oracle of this test").eval()
    model.load_state_dict(source.tensors)
    for need in method.needs:
        found, _ = need.resolve(bench, method, source)
        samples, squares = bench.setting.parts[need.part], []
        for rows in torch.arange(len(samples)).split(4):
            losses = bench.data.objective.sample_losses(model(samples.inputs[rows]), samples.targets[rows])
            weight = model.backbone.blocks[0].mlp[0].weight
            squares.append(torch.autograd.grad(losses.mean(), weight)[0].square())
        torch.testing.assert_close(found["backbone.blocks.0.mlp.0.weight"], torch.stack(squares).mean(0))


OPTIONS = {"rank": 2, "alpha": 4.0, "retain_weight": 0.3, "svd": "exact", "epsilon": 1e-5, "relative": False}


def loku(**options) -> LoKU:
    given = OPTIONS | options
    method = taught(LoKU(TokenNet(), importance=Importance(), finetune=Recipe(1), targets="^(layer|head)$", **given), 0)
    stream = torch.Generator().manual_seed(1)
    for part in ("forget", "retain"):
        weights = dict(method.model.named_parameters())
        method.given[f"{part}_fisher"] = {n: torch.rand(w.shape, generator=stream) for n, w in weights.items()}
    method.source_loaded()
    return method


def test_adapters_begin_with_the_rows_that_matter():
    method, source = loku(), TokenNet()
    layers = adapters.adapted_layers(method.model)
    assert list(layers) == ["layer", "head"]
    for name, layer in layers.items():
        forget, retain = (method.given[f"{part}_fisher"][f"{name}.weight"] for part in ("forget", "retain"))
        weight = source.get_submodule(name).weight
        expected = FILA(weight, 2, 4.0, importance=row_importance(forget, retain, 1e-5))
        torch.testing.assert_close(layer.adapters[0].up, expected.up)
        torch.testing.assert_close(layer.adapters[0].down, expected.down)


def test_options_of_a_layer_are_added_to_its_importance():
    layers = adapters.adapted_layers(loku(by_layer={"head": {"rank": 1}}).model)
    assert [len(layer.adapters[0].down) for layer in layers.values()] == [2, 1]


@pytest.mark.parametrize("retain_weight", [0.0, 0.3, 1.0])
def test_loss_is_the_hinge_and_the_retained_loss(retain_weight):
    method, plain = loku(retain_weight=retain_weight), TokenNet()
    counted = BATCH.targets[FORGET] != -100
    hinge = inverted_hinge(plain(BATCH.inputs[FORGET])[counted], BATCH.targets[FORGET][counted]).mean()
    expected = hinge + retain_weight * mean_of_tokens(rows_of(plain, BATCH, ~FORGET))
    torch.testing.assert_close(method.loss(BATCH), expected)
    (of_weight,) = torch.autograd.grad(expected, plain.layer.weight)
    adapter = method.model.layer.adapters[0]
    of_up, of_down = torch.autograd.grad(method.loss(BATCH), [adapter.up, adapter.down])
    torch.testing.assert_close(of_up, adapter.scale * of_weight @ adapter.down.T)
    torch.testing.assert_close(of_down, adapter.scale * adapter.up.T @ of_weight)


def test_a_pretrained_model_takes_the_published_rate_and_a_small_one_more():
    rates = [composed(["method=loku", *lines]).method.finetune.lr for lines in ([], ["model=smollm2"])]
    assert rates == [5e-3, 2e-4]
