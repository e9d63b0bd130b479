"""SCRUB: the distance to the teacher, the two kinds of steps, and fine-tuning as its special case."""

import copy

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.scrub import SCRUB, distance
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)
IMAGES, LABELS = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 3, (6,))
STUDENT, TEACHER = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()


def scrub(**options) -> SCRUB:
    defaults = {"max_epochs": 2, "gamma": 0.99, "alpha": 0.5, "temperature": 4.0, "epochs": 3, "lr": 0.1}
    defaults |= {"momentum": 0.9, "weight_decay": 0.0, "forget_batch_size": 32, "retain_batch_size": 64}
    defaults |= {"rewind": False}
    method = SCRUB(copy.deepcopy(STUDENT), **defaults | options)
    method.teacher.load_state_dict(TEACHER.state_dict())
    return method


def batch(forgotten: bool) -> Batch:
    return Batch(IMAGES, LABELS, tags={"forgotten": torch.full((6,), forgotten)})


def plain_distance(temperature: float) -> torch.Tensor:
    total = 0.0
    for x in IMAGES:
        p, q = (TEACHER(x) / temperature).softmax(0), (STUDENT(x) / temperature).softmax(0)
        total += temperature**2 * sum(p[c] * (p[c].log() - q[c].log()) for c in range(3))
    return total / len(IMAGES)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distance_is_the_softened_kl(temperature):
    found = distance(STUDENT(IMAGES), TEACHER(IMAGES), temperature)
    torch.testing.assert_close(found, plain_distance(temperature))


def test_forgotten_batches_ascend_and_retained_ones_descend():
    away, cross_entropy = plain_distance(4.0), nn.functional.cross_entropy(STUDENT(IMAGES), LABELS)
    torch.testing.assert_close(scrub().loss(batch(forgotten=True)), -away)
    torch.testing.assert_close(scrub().loss(batch(forgotten=False)), 0.99 * cross_entropy + 0.5 * away)


def test_a_student_still_like_its_teacher_has_no_direction_to_leave_in():
    """The first max step has gradient zero where student and teacher compute alike (without batch statistics)."""
    method = scrub()
    method.model.load_state_dict(method.teacher.state_dict())
    method.loss(batch(forgotten=True)).backward()
    assert all(weight.grad.abs().max() < 1e-12 for weight in method.model.parameters())


def test_without_max_epochs_and_distance_it_is_fine_tuning(tmp_path):
    overrides = ["model.width=4", "training.epochs=1", f"output_dir={tmp_path}", "progress=off"]
    trained = []
    for method in (
        ["method=finetune", "data.batch_size=64", "method.lr=0.01"],
        ["method=scrub", "method.max_epochs=0", "method.gamma=1", "method.alpha=0", "method.retain_batch_size=64"],
    ):
        bench = Workbench(composed([*overrides, *method, "method.lr=0.01", "method.epochs=2"]))
        fit = bench.method("method")
        fit.model.load_state_dict(bench.reference("source").tensors)
        bench.fit(fit, tmp_path / fit.__class__.__name__, "fit")
        trained.append(fit.model.state_dict())
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, rtol=1e-5, atol=1e-6)


def test_rewinding_takes_the_epoch_whose_forget_error_is_that_of_unseen_data(tmp_path):
    overrides = ["method=scrub", "method.rewind=true", "data.validation=0.2", "model.width=4", "training.epochs=4"]
    overrides += ["method.epochs=4", "method.max_epochs=3", "method.lr=0.005", f"output_dir={tmp_path}", "progress=off"]
    bench = Workbench(composed(overrides))
    fit = bench.method("method")
    fit.model.load_state_dict(bench.reference("source").tensors)
    bench.fit(fit, tmp_path / "run", "fit")

    def error_of(state: dict, images: torch.Tensor, labels: torch.Tensor) -> float:
        model = bench.method("source.method").model.eval()
        model.load_state_dict(state)
        return (model(images).argmax(1) != labels).double().mean().item()

    forget, unseen = bench.setting.parts["forget"], bench.data.validation
    alike = unseen.targets == 3
    errors = [error_of(state, forget.inputs, forget.targets) for state in fit.states]
    goal = error_of(fit.states[-1], unseen.inputs[alike], unseen.targets[alike])
    assert fit.outcome["forget_errors"] == errors
    assert fit.outcome["validation_error"] == goal
    chosen = fit.outcome["epoch"] - 1
    assert abs(errors[chosen] - goal) == min(abs(error - goal) for error in errors)
    assert all(torch.equal(fit.states[chosen][name], tensor) for name, tensor in fit.model.state_dict().items())
    assert len({tuple(state["head.bias"].tolist()) for state in fit.states}) == 4


def test_rewinding_without_validation_data_is_one_line(tmp_path):
    bench = Workbench(composed(["method=scrub", "method.rewind=true", f"output_dir={tmp_path}", "progress=off"]))
    with pytest.raises(ValueError, match=r"data.validation=0.1$"):
        bench.method("method").batches(bench.setting)
