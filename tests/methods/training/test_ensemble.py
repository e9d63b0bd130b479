"""Ensembles and distillation: what the members say together, and what a student is taught."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.experiment import run_experiment
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.distillation import Distillation
from fisherexp.methods.training.mean_outputs import mean_logits

torch.manual_seed(0)
LOGITS, LABELS = [torch.randn(20, 5, dtype=torch.float64) for _ in range(3)], torch.randint(5, (20,))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_alike_members_say_what_one_says(average):
    one = LOGITS[0].log_softmax(1)
    for count in (1, 3):
        torch.testing.assert_close(mean_logits([LOGITS[0]] * count, average).log_softmax(1), one)


def test_either_mean_is_no_worse_than_the_mean_member():
    member = torch.stack([F.cross_entropy(logits, LABELS) for logits in LOGITS]).mean()
    for average in ("logits", "probabilities"):
        assert F.cross_entropy(mean_logits(LOGITS, average), LABELS) < member  # both losses are convex
    expected = torch.stack([logits.softmax(1) for logits in LOGITS]).mean(0)
    torch.testing.assert_close(mean_logits(LOGITS, "probabilities").exp(), expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ensembles")


def run(folder, name: str, *overrides: str) -> dict:
    small = ["model.hidden=[16]", "training.epochs=1", "data.train_size=128", "progress=off", f"output_dir={folder}"]
    return run_experiment(composed([*small, *overrides]), folder / name, [])


def test_members_are_shared_and_each_number_of_them_is_evaluated(folder):
    three = run(folder, "three", "method=ensemble", "method.members=3")
    single = run(folder, "erm", "method=erm", "model=mlp", "training=adam")
    by_members = three["outcome"]["by_members"]
    assert by_members[0]["test_nll"] == pytest.approx(single["metrics"]["after"]["test_nll"])
    assert by_members[2]["test_nll"] == three["metrics"]["after"]["test_nll"]
    assert len({each["test_nll"] for each in by_members}) == 3
    trained = sorted(path.name for path in (folder / "artefacts" / "weights").glob("*.safetensors"))
    two = run(folder, "two", "method=ensemble", "method.members=2")
    assert two["metrics"]["after"]["test_nll"] == by_members[1]["test_nll"]
    assert trained == sorted(path.name for path in (folder / "artefacts" / "weights").glob("*.safetensors"))


def student(weight: float, temperature: float) -> Distillation:
    torch.manual_seed(0)
    method = Distillation(nn.Linear(4, 3).double(), Recipe(), 1, weight, temperature)
    fresh = method.model.weight.detach().clone()
    method.given["other_seeds"] = [nn.Linear(4, 3).double().state_dict()]
    method.model.load_state_dict(nn.Linear(4, 3).double().state_dict())  # the source
    method.source_loaded()
    assert torch.equal(method.model.weight, fresh)
    return method


@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 1.0), (0.5, 2.0), (1.0, 1.0)])
def test_a_student_with_new_weights_learns_from_labels_and_from_the_mean_of_the_teachers(weight, temperature):
    method = student(weight, temperature)
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))
    assert len(method.teachers) == 2
    taught = sum(teacher(x) for teacher in method.teachers) / 2
    p, q = (taught / temperature).softmax(1), (method.model(x) / temperature).softmax(1)
    expected = (1 - weight) * F.cross_entropy(method.model(x), y)
    expected = expected + weight * temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(method.loss(Batch(x, y)), expected)
    assert all(not p.requires_grad for p in method.teachers.parameters())


def test_decay_multiplies_matrices_and_leaves_vectors():
    model = nn.ParameterList([torch.ones(2, 2), torch.ones(2)])
    parameters = list(model.parameters())
    recipe = Recipe(optimizer="adamw", lr=0.01, weight_decay=3.0, schedule="constant", decay_vectors=False)
    optimizer = recipe.configure(model, 10)["optimizer"]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(parameters[0].detach(), torch.full((2, 2), 1 - 0.01 * 3.0))
    torch.testing.assert_close(parameters[1].detach(), torch.ones(2))
