"""AlignGuard-LoRA from a source: its Fishers by autograd, its terms by their formulas, what it is at the edges."""

import pytest
import torch
from torch import nn

from fisherexp import adapters
from fisherexp.config.explain import explain
from fisherexp.data.batch import Batch
from fisherexp.methods.alignment import coherence, largest_entries, overlap, top_eigenvectors
from fisherexp.methods.finetuning.source_fisher import layer_fishers
from fisherexp.runs.finished import finished

OFF = ["method.lambda_=0.0", "method.lambda_t=0.0", "method.lambda_nc=0.0"]
EWC = [
    "method.split=mask",
    "method.share=1.0",
    "method.damping=diagonal",
    "method.lambda_t=0.0",
    "method.lambda_nc=0.0",
]


class OverPositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(self.first(x).tanh()).mean(1)


def test_layer_fishers_against_one_backward_pass_per_sample():
    torch.manual_seed(0)
    net, x, y = OverPositions(), torch.randn(5, 7, 4), torch.randint(3, (5,))
    losses = nn.CrossEntropyLoss(reduction="none")
    found = layer_fishers(net, ["first", "second"], [Batch(x[:3], y[:3]), Batch(x[3:], y[3:])], losses)
    assert net.training
    assert found.samples == 5
    for name in ("first", "second"):
        weight = net.get_submodule(name).weight
        each = [torch.autograd.grad(losses(net(a[None]), b[None]).sum(), weight)[0] for a, b in zip(x, y, strict=True)]
        torch.testing.assert_close(found.rows[name], sum(g @ g.T for g in each) / 5)
        torch.testing.assert_close(found.diagonal[name], sum(g.square() for g in each) / 5)
    with pytest.raises(ValueError, match="linear layers alone, not of: 0"):
        layer_fishers(nn.Sequential(nn.Conv2d(1, 1, 1)), ["0"], [], losses)


def moved(bench):
    """A method right before its fit, its updates drawn at random, and the Fishers it was given."""
    method, source = bench.method("method"), bench.reference("source")
    method.model.load_state_dict(source.tensors)
    (need,) = method.needs
    fishers, (cost,) = need.resolve(bench, method, source)
    assert cost["backward_samples"] == fishers.samples > 0
    method.given[need.name] = fishers
    method.source_loaded()
    method.on_train_start()
    for adapter in adapters.adapters(method.model):
        nn.init.normal_(adapter.up, std=0.3)
    return method, fishers


@pytest.mark.parametrize("damping", ["rows", "diagonal"])
@pytest.mark.parametrize(("split", "stabilizer"), [("eig", "identity"), ("mask", "diagonal")])
def test_terms_against_their_formulas(make_bench, split, damping, stabilizer):
    options = {"split": split, "damping": damping, "stabilizer": stabilizer, "beta": 0.5, "tau": 0.2}
    weights = {"lambda_": 3.0, "lambda_t": 0.7, "lambda_nc": 2.0, "mix": 0.25}
    lines = [f"method.{name}={value}" for name, value in (options | weights).items()]
    method, (rows, diagonal, _) = moved(make_bench("alignguard", *lines))
    expected = dict.fromkeys(("alignment", "task", "overlap", "coherence"), 0.0)
    for name, layer in adapters.adapted_layers(method.model).items():
        update, weight = layer.weight - layer.frozen_weight, layer.frozen_weight
        if split == "eig":
            u = top_eigenvectors(rows[name], 0.25)
            aligned = u @ u.T @ update
        else:
            aligned = update * largest_entries(diagonal[name], 0.25)
        rest, fisher = update - aligned, diagonal[name]
        trace = (aligned.T @ rows[name] @ aligned).trace()
        expected["alignment"] += 3.0 * (trace if damping == "rows" else (fisher * aligned**2).sum())
        expected["task"] += 0.7 * ((1.0 if stabilizer == "identity" else fisher) * rest**2).sum()
        expected["overlap"] += 2.0 * 0.25 * overlap(aligned, rest, weight, 0.5, 0.2)
        expected["coherence"] += 2.0 * 0.75 * coherence(aligned, rest)
    found = method.terms()
    for term, value in expected.items():
        torch.testing.assert_close(found[term], value, rtol=2e-4, atol=1e-6, msg=term)
    assert found["coherence"] < 1e-6  # an orthogonal split or a mask has none
    assert (found["overlap"] > 1e-6) == (split == "eig")


def test_on_every_entry_it_is_ewc_on_the_update(make_bench):
    method, (_, diagonal, _) = moved(make_bench("alignguard", *EWC, "method.lambda_=5.0"))
    layers = adapters.adapted_layers(method.model)
    ewc = sum((diagonal[name] * (layer.weight - layer.frozen_weight) ** 2).sum() for name, layer in layers.items())
    torch.testing.assert_close(sum(method.terms().values()), 5.0 * ewc)


def test_without_its_terms_it_is_lora_and_with_them_it_keeps_more(make_bench, tmp_path):
    def run(number, *line):
        bench = make_bench(*line)
        return bench, finished(bench, tmp_path / str(number), own=True)[0]

    _, lora = run(0, "lora")
    _, rest = run(1, "alignguard", *OFF)
    for name, value in lora.model.state_dict().items():
        assert torch.equal(rest.model.state_dict()[name], value)
    bench, guarded = run(2, "alignguard", "method.lambda_=1e3")
    there, moves = bench.on_data("source.data"), {}
    source = there.trained("source.method").tensors
    fishers, _ = guarded.needs[0].resolve(bench, guarded, bench.reference("source"))
    for which, model in (("lora", lora.model), ("guarded", guarded.model)):
        state = model.state_dict()
        updates = {name: state[f"{name}.weight"] - source[f"{name}.weight"] for name in fishers.rows}
        moves[which] = sum((u * (fishers.rows[name] @ u)).sum() for name, u in updates.items())
    assert moves["guarded"] < 0.2 * moves["lora"]
    assert guarded.outcome["terms"]["alignment"] > 0


def test_a_source_without_data_of_its_own_is_refused_before_data_are_read():
    (problem,) = explain(["method=alignguard", "source=trained"])
    assert "AlignGuard needs a source trained on data of its own" in str(problem)
    assert explain(["method=lora", "source=trained"]) == []
