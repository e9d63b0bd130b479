"""RegMean: the least-squares solution, and the Gram matrices it is made from."""

import copy

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.methods.merging.grams import GramPass
from fisherexp.methods.merging.merging import mean_of
from fisherexp.methods.merging.regmean import regression_mean
from fisherexp.runs.workbench import Workbench


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_the_joint_least_squares_solution(models):
    inputs = [rows(20, seed) for seed in (1, 2, 3)]
    merged = regression_mean(models, [{"a": x.T @ x} for x in inputs], ridge=1e-14)["a.weight"]
    targets = torch.cat([x @ model["a.weight"].T for x, model in zip(inputs, models, strict=True)])
    torch.testing.assert_close(merged.T, torch.linalg.lstsq(torch.cat(inputs), targets).solution)


def test_without_correlations_of_inputs_it_is_the_mean(models, assert_same):
    eye = [{"a": torch.eye(5, dtype=torch.float64)}] * 3
    assert_same(regression_mean(models, eye), mean_of(models))


def test_scale_zero_weights_every_input_by_itself(models):
    inputs = [rows(9, seed) for seed in (4, 5, 6)]
    merged = regression_mean(models, [{"a": x.T @ x} for x in inputs], scale=0.0, ridge=1e-14)["a.weight"]
    powers = [x.square().sum(0) for x in inputs]
    weighted = sum(p * model["a.weight"] for p, model in zip(powers, models, strict=True)) / sum(powers)
    torch.testing.assert_close(merged, weighted)


@pytest.mark.parametrize(("counts", "same"), [((20, 20, 20), True), ((20, 40, 80), False)])
def test_sums_and_the_means_of_the_authors_code_agree_for_equally_many_inputs(counts, same, models):
    """(Σ_k a G_k / n_k)⁻¹ Σ_k a G_k / n_k W_kᵀ, a on and 1 off the diagonal of the scale, as the code has it."""
    inputs = [rows(count, seed) for seed, count in enumerate(counts)]
    found = regression_mean(models, [{"a": x.T @ x} for x in inputs], scale=0.9, ridge=1e-14)["a.weight"]
    means = [x.T @ x / len(x) for x in inputs]
    means = [gram * (0.9 + 0.1 * torch.eye(5, dtype=torch.float64)) for gram in means]
    right = sum(gram @ model["a.weight"].T for gram, model in zip(means, models, strict=True))
    expected = (torch.inverse(sum(means)) @ right).T
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10) == same


def test_inputs_that_never_occur_get_the_mean(models):
    inputs = [rows(9, seed) for seed in (7, 8, 9)]
    for x in inputs:
        x[:, 2] = 0
    merged = regression_mean(models, [{"a": x.T @ x} for x in inputs])
    torch.testing.assert_close(merged["a.weight"][:, 2], mean_of(models)["a.weight"][:, 2])
    torch.testing.assert_close(merged["a.bias"], mean_of(models)["a.bias"])


def test_a_layer_without_inputs_gets_the_mean(models, assert_same):
    assert_same(regression_mean(models, [{"a": torch.zeros(5, 5, dtype=torch.float64)}] * 3), mean_of(models))


def test_gram_matrices_are_those_of_each_layers_inputs(tmp_path):
    small = [
        "model=mlp",
        "model.hidden=[7,6]",
        "training=small",
        "progress=off",
        "scenario=none",
        f"output_dir={tmp_path}",
    ]
    bench = Workbench(composed([*small, "data.batch_size=100"]))
    grams = GramPass(bench.classifier("grams"))
    bench.fit(grams, tmp_path / "grams", "grams")
    model, images = bench.classifier("grams"), bench.setting.parts["train"].inputs
    x = model.normalize(images).flatten(1)
    expected = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            expected[name] = x.double().T @ x.double()
            x = layer(x).relu()
    assert list(grams.sums) == list(expected)
    for name, gram in expected.items():
        torch.testing.assert_close(grams.sums[name], gram.detach(), rtol=1e-5, atol=1e-3)


class Reader(nn.Module):
    """A linear layer on every token, the mean of those that count, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.each, self.head = nn.Embedding(9, 4), nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, inputs):
        mask = inputs["attention_mask"][..., None]
        return self.head((self.each(self.tokens(inputs["input_ids"])) * mask).sum(1) / mask.sum(1))


def test_padding_is_no_input():
    model, texts = Reader(), [[3, 1, 4, 1, 5], [2, 6], [7]]
    together, apart = GramPass(copy.deepcopy(model)), GramPass(model)
    padded = torch.tensor([text + [0] * (5 - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (5 - len(text)) for text in texts])
    together.training_step(Batch({"input_ids": padded, "attention_mask": mask}, torch.zeros(3)), 0)
    for text in texts:
        alone = torch.tensor([text])
        apart.training_step(Batch({"input_ids": alone, "attention_mask": torch.ones_like(alone)}, torch.zeros(1)), 0)
    assert list(together.sums) == ["each", "head"]
    for name, gram in apart.sums.items():
        torch.testing.assert_close(together.sums[name], gram)
