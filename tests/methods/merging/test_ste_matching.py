"""The straight-through estimator: its value, its gradient, where it begins and what it keeps."""

from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.methods.merging.merging import mean_of
from fisherexp.methods.merging.permutations import permuted
from fisherexp.methods.merging.ste_matching import STEMatching
from fisherexp.methods.merging.weight_matching import match
from fisherexp.runs.finished import resolve_needs
from fisherexp.runs.workbench import Workbench

SMALL = [
    "model=mlp",
    "model.hidden=[12]",
    "training.epochs=3",
    "scenario=none",
    "training=small",
    "progress=off",
    "method=ste_matching",
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Workbench(composed([*SMALL, "method.epochs=3", f"output_dir={tmp_path_factory.mktemp('ste')}"]))


@pytest.fixture
def method(bench) -> STEMatching:
    method, source = bench.method("method"), bench.reference("source")
    method.model.load_state_dict(source.tensors)
    resolve_needs(bench, method, source)
    method.batches(bench.setting)
    method.setup("fit")
    method.on_train_start()
    return method


def test_begins_with_weight_matching(method):
    found, _ = match(method.first, method.second, method.spec, method.seed)
    assert all(torch.equal(found[which], order) for which, order in method.best.items())
    state = mean_of([method.first, permuted(method.second, method.spec, found)])
    logits = functional_call(method.model, state, method.probe.inputs)
    assert method.losses == [pytest.approx(F.cross_entropy(logits, method.probe.targets).item())]


def test_value_and_gradient_of_a_step(method):
    """The loss is that of the mean; its gradient is that at the mean, halved, as if θ were the second network."""
    batch = Batch(method.probe.inputs[:50], method.probe.targets[:50])
    loss = method.training_step(batch, 0)
    loss.backward()
    mean = mean_of([method.first, permuted(method.second, method.spec, method.permutations)])
    mean = {name: mean[name].clone().requires_grad_() for name, _ in method.model.named_parameters()}
    expected = F.cross_entropy(functional_call(method.model, mean, batch.inputs), batch.targets)
    assert loss.item() == pytest.approx(expected.item())
    gradients = torch.autograd.grad(expected, list(mean.values()))
    for (name, parameter), gradient in zip(method.model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 2, msg=name)


def test_keeps_the_best_permutation_it_met(bench, method, tmp_path):
    bench.fit(method, tmp_path, "matching")
    assert len(method.losses) >= 4  # before the first epoch, and after each
    assert method.outcome["best_epoch"] == method.losses.index(min(method.losses))
    with torch.no_grad():
        loss = F.cross_entropy(method.model(method.probe.inputs), method.probe.targets).item()
    assert loss == pytest.approx(min(method.losses), rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_the_search_steps_as_its_options_say(momentum):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2))
    optimizer = STEMatching.configure_optimizers(SimpleNamespace(model=net, lr=0.2, momentum=momentum))
    start = net[0].bias.detach().clone()
    for _ in range(2):  # along a gradient of ones
        net[0].bias.grad = torch.ones(2)
        optimizer.step()
    torch.testing.assert_close(net[0].bias.detach(), start - 0.2 * (1 + 1 + momentum))
