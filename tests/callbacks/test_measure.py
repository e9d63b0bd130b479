"""What the callback keeps is what the function gives afterwards, and looking changes nothing."""

from functools import partial

import pytest
import torch
from pairs import pairs
from safetensors.torch import load_file

from fisherexp.callbacks import measures
from fisherexp.callbacks.measure import Measure
from fisherexp.config.explain import composed, explain
from fisherexp.contract.method import StopAfter, Stopped
from fisherexp.curvature import fisher_diagonal, hutchinson_hessian_diagonal
from fisherexp.experiment import run_experiment
from fisherexp.methods.method import ModelMethod
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import generator

SMALL = ["method=erm", "scenario=none", "model=mlp", "model.hidden=[6]", "training.epochs=3", "progress=off"]
MEASURES = {
    "eigenvalues": partial(measures.eigenvalues, count=2, tolerance=1e-4),
    "hutchinson": partial(measures.hutchinson, probes=3),
    "low_rank": partial(measures.low_rank, damping=1e-3),
    "gradient_norms": measures.gradient_norms,
    "second_moments": partial(measures.second_moments, parameters=["head.bias"]),
}


def bench_with(folder, *callbacks) -> Workbench:
    return Workbench(composed([*SMALL, f"output_dir={folder}"]), callbacks=list(callbacks))


@pytest.mark.parametrize("name", MEASURES)
def test_during_test_it_keeps_what_the_function_gives(tmp_path, name):
    bench = bench_with(tmp_path, Measure(MEASURES[name], "test", "found.safetensors"))
    module = ModelMethod(bench.method("method").model)
    before = {key: tensor.clone() for key, tensor in module.model.state_dict().items()}
    bench.test(module, tmp_path, "test", own=True)
    found = load_file(tmp_path / "found.safetensors")
    expected = MEASURES[name](module.model, pairs(bench.setting.loader("test")))
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-7)
    assert all(torch.equal(before[key], tensor) for key, tensor in module.model.state_dict().items())


def test_norms_and_moments_are_those_of_the_fisher(tmp_path):
    bench = bench_with(tmp_path)
    model, batches = bench.method("method").model.double(), pairs(bench.setting.loader("test"))
    fisher = fisher_diagonal(model, batches)
    norms = measures.gradient_norms(model, pairs(bench.setting.loader("test")))
    for name in fisher:
        torch.testing.assert_close(norms[name].square().mean(), fisher[name].sum())
    (block,) = measures.second_moments(model, pairs(bench.setting.loader("test")), ["head.bias"]).values()
    torch.testing.assert_close(block.diagonal(), fisher["head.bias"])


def test_eigenvalues_are_those_of_the_dense_hessian(tmp_path):
    bench = bench_with(tmp_path)
    model = bench.method("method").model.double()
    images, labels = pairs(bench.setting.loader("test", batch_size=64))[0]
    found = measures.eigenvalues(model, [(images[:40], labels[:40]), (images[40:], labels[40:])], 3, tolerance=1e-9)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        state = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(model, state, images), labels)

    dense = torch.autograd.functional.hessian(loss, torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(found["values"], torch.linalg.eigvalsh(dense).flip(0)[:3], rtol=1e-7, atol=1e-10)


def test_during_fit_it_looks_every_so_often_and_leaves_the_training_alone(tmp_path):
    trained, looks = {}, {}
    for name in ("without", "with", "stopped"):
        watch = Measure(MEASURES["eigenvalues"], "fit", "found.safetensors", every=2, first=3)
        bench = bench_with(tmp_path / name, *([] if name == "without" else [watch]))
        if name == "stopped":
            bench.cfg.checkpoint_every = 0
            bench.callbacks.append(StopAfter(2 * 19 + 4))  # in the last of three epochs of 19 batches
            with pytest.raises(Stopped):
                bench.fit(bench.method("method"), tmp_path / name, "fit", own=True)
            again = Measure(MEASURES["eigenvalues"], "fit", "found.safetensors", every=2, first=3)
            bench = bench_with(tmp_path / name, again)
        method = bench.method("method")
        bench.fit(method, tmp_path / name, "fit", own=True)
        trained[name] = method.model.state_dict()
        if name != "without":
            looks[name] = load_file(tmp_path / name / "found.safetensors")
    assert looks["with"]["epoch"].tolist() == [2, 3]
    assert looks["with"]["values"].shape == (2, 2)
    for key, tensor in looks["with"].items():
        assert torch.equal(tensor, looks["stopped"][key]), key
    for key, tensor in trained["without"].items():
        assert torch.equal(tensor, trained["with"][key]), key


@pytest.mark.parametrize("name", ["eigenvalues", "hutchinson", "low_rank", "gradient_norms"])
def test_the_configs_are_valid(name):
    assert explain([*SMALL, f"callbacks=[{name}]"]) == []
    (problem,) = explain([*SMALL, f"callbacks=[{name}]", f"+callbacks.{name}.measure.no_such=1"])
    assert "no_such" in str(problem)


def test_a_training_that_was_done_before_is_done_again_to_be_watched(tmp_path):
    found = []
    for callbacks in ([], ["eigenvalues"]):
        overrides = [*SMALL, f"output_dir={tmp_path}", f"callbacks={callbacks}"]
        folder = tmp_path / str(len(callbacks))
        found.append(run_experiment(composed(overrides), folder, overrides)["metrics"]["after"])
    assert load_file(folder / "eigenvalues.safetensors")["values"].shape == (3, 3)  # epochs, eigenvalues
    assert found[0]["test_nll"] == found[1]["test_nll"]
    # Kept apart: nothing keeps a callback of a user's from changing what it watches.
    assert len(list((tmp_path / "artefacts" / "weights").glob("*.safetensors"))) == 2


def test_the_estimated_diagonal_has_the_error_of_the_estimate():
    """A single process: what the curvature engine gives for the same signs."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    batches = [(torch.randn(n, 3, dtype=torch.float64), torch.randint(2, (n,))) for n in (4, 3)]
    found = measures.hutchinson(model, batches, probes=5, seed=2)
    expected = hutchinson_hessian_diagonal(model, "cross_entropy", batches, 5, generator=generator("hutchinson", 2, 0))
    for name in ("weight", "bias"):
        torch.testing.assert_close(found[f"mean/{name}"], expected.mean[name])
        torch.testing.assert_close(found[f"error/{name}"], expected.standard_error[name])
