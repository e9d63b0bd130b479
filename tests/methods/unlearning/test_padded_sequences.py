"""What compares predictions with a teacher's, or measures logits, over sequences: prompts and padding have no say."""

import copy

import pytest
import torch
from tiny_tokens import OBJECTIVE, TokenNet, token_batch
from torch import nn
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.config.validate import validate
from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.distillation import Distillation
from fisherexp.methods.unlearning.bad_teacher import BadTeacher
from fisherexp.methods.unlearning.lfssd import LFSSD, length_gradient
from fisherexp.methods.unlearning.scrub import SCRUB
from fisherexp.methods.unlearning.teacher import kl_to_teacher
from fisherexp.runs.workbench import Workbench

BATCH = token_batch()
SGD = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def padded(batch: Batch, more: int = 9) -> Batch:
    """The same rows, beside a longer one, so to say."""
    return batch._replace(inputs=F.pad(batch.inputs, (0, more)), targets=F.pad(batch.targets, (0, more), value=-100))


def mean_kl(teacher: nn.Module, student: nn.Module, batch: Batch) -> torch.Tensor:
    """Token by token from the definition: a mean over sequences of means over tokens."""
    found = []
    for tokens, targets in zip(batch.inputs, batch.targets, strict=True):
        p, q = (net(tokens[None])[0].softmax(-1) for net in (teacher, student))
        found.append(torch.stack([(p[t] * (p[t] / q[t]).log()).sum() for t in (targets >= 0).nonzero()]).mean())
    return torch.stack(found).mean()


def bad_teacher() -> tuple[nn.Module, BadTeacher]:
    options = {"retain_share": 1.0, "temperature": 1.0, "official": False, "epochs": 1, "lr": 0.1, "weight_decay": 0.0}
    method = BadTeacher(TokenNet(0), **options, batch_size=8)
    method.teacher.load_state_dict(TokenNet(1).state_dict())
    method.untrained.load_state_dict(TokenNet(1).state_dict())
    return TokenNet(1), method


def scrub() -> tuple[nn.Module, SCRUB]:
    options = {"max_epochs": 1, "gamma": 0.0, "alpha": 1.0, "temperature": 1.0, "epochs": 1, "rewind": False}
    method = SCRUB(TokenNet(0), **options, **SGD, forget_batch_size=8, retain_batch_size=8)
    method.teacher.load_state_dict(TokenNet(1).state_dict())
    return TokenNet(1), method


def distillation() -> tuple[nn.Module, Distillation]:
    method = Distillation(TokenNet(0), Recipe(1, "sgd", 0.1, 0.0, 0.0), others=0, teacher_weight=1.0)
    method.teachers.append(TokenNet(1))
    return TokenNet(1), method


@pytest.mark.parametrize("make", [bad_teacher, scrub, distillation])
def test_a_divergence_is_of_the_tokens_that_are_predicted(make):
    teacher, method = make()
    method.objective = OBJECTIVE
    wanted = mean_kl(teacher, method.model, BATCH)
    for batch in (BATCH, padded(BATCH)):
        torch.testing.assert_close(method.loss(batch), wanted)
    everywhere = kl_to_teacher(method.model(BATCH.inputs), teacher(BATCH.inputs)).mean()
    assert not torch.isclose(everywhere, wanted)  # the control


def test_a_sequence_without_a_token_to_predict_diverges_by_nothing():
    logits = torch.randn(2, 4, 3)
    targets = torch.tensor([[-100] * 4, [1, -100, -100, -100]])
    found = kl_to_teacher(logits, logits + torch.randn_like(logits), targets=targets)
    assert found[0] == 0 < found[1]


def test_divergences_of_narrow_logits_have_32_bits():
    torch.manual_seed(0)
    teacher = torch.randn(4, 5000).bfloat16()
    student = teacher + (0.1 * torch.randn(4, 5000)).bfloat16()
    found = kl_to_teacher(student, teacher)
    torch.testing.assert_close(found.double(), kl_to_teacher(student.double(), teacher.double()), rtol=1e-3, atol=0)


def test_the_length_of_logits_is_of_the_tokens_that_are_predicted():
    method = LFSSD(TokenNet(0), alpha=1.0, alpha_relative=1.0, lambda_=1.0, batch_size=8)
    method.objective = OBJECTIVE
    model = copy.deepcopy(method.model)
    rows = zip(BATCH.inputs, BATCH.targets, strict=True)
    length = sum(model(tokens[None])[0][targets >= 0].square().sum() for tokens, targets in rows) / BATCH.size
    wanted = torch.autograd.grad(length, list(model.parameters()))
    tags = {"forget_pass": torch.zeros(BATCH.size, dtype=torch.bool)}
    for batch in (BATCH, padded(BATCH)):
        method.sums["train"].clear()
        method.training_step(batch._replace(tags=tags), 0)
        for (name, _), gradient in zip(model.named_parameters(), wanted, strict=True):
            torch.testing.assert_close(method.sums["train"][name], gradient.abs())
    assert not torch.allclose(length_gradient(model, BATCH.inputs)["head.weight"], wanted[-2].abs())  # the control


@pytest.mark.parametrize("method", ["bad_teacher", "scrub"])
def test_predictions_without_probabilities_have_no_divergence(method):
    (problem,) = validate(composed([f"method={method}", "data=diabetes", "model=mlp", "scenario=random_forgetting"]))
    assert "class_labels or next_tokens" in problem.reason


def test_texts_have_no_class_to_rewind_by(tmp_path):
    lines = ["method=scrub", "method.rewind=true", "data=reports", "model=small_gpt", "data.validation=0.2"]
    bench = Workbench(composed([*lines, "scenario=random_forgetting", f"output_dir={tmp_path}", "progress=off"]))
    with pytest.raises(ValueError, match=r"^method\.rewind compares with .* of the forgotten classes: set it false$"):
        bench.method("method").batches(bench.setting)
