"""Bad teaching: the divergence to each sample's teacher, and who the teachers are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.data.batch import joined
from fisherexp.methods.unlearning.bad_teacher import BadTeacher, bad_teaching
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)
STUDENT, COMPETENT, INCOMPETENT = (torch.randn(6, 4, dtype=torch.float64) for _ in range(3))
FORGET = torch.tensor([True, False, False, True, False, False])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_loss_is_the_kl_to_each_samples_teacher(temperature):
    total = 0.0
    for i in range(6):
        teacher = INCOMPETENT[i] if FORGET[i] else COMPETENT[i]
        p, q = (teacher / temperature).softmax(0), (STUDENT[i] / temperature).softmax(0)
        total += sum(p[c] * (p[c].log() - q[c].log()) for c in range(4))
    loss = bad_teaching(STUDENT, COMPETENT, INCOMPETENT, FORGET, temperature)
    torch.testing.assert_close(loss, total / 6)


def test_official_scale_is_the_element_mean():
    teacher = torch.where(FORGET[:, None], INCOMPETENT, COMPETENT)
    expected = F.kl_div(STUDENT.log_softmax(1), teacher.softmax(1), reduction="none").mean()
    torch.testing.assert_close(bad_teaching(STUDENT, COMPETENT, INCOMPETENT, FORGET, official=True), expected)


def test_a_student_like_its_teacher_has_nothing_to_learn():
    loss = bad_teaching(STUDENT, STUDENT, INCOMPETENT, torch.zeros(6, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.zeros((), dtype=torch.float64))


def method(**options) -> BadTeacher:
    defaults = {"retain_share": 0.3, "temperature": 1.0, "official": False, "epochs": 2, "lr": 1e-2}
    return BadTeacher(nn.Linear(2, 2), **defaults | {"weight_decay": 0.0, "batch_size": 200} | options)


def test_batches_hold_all_that_is_forgotten_and_a_share_of_the_rest(tmp_path):
    setting = Workbench(composed([f"output_dir={tmp_path}", "progress=off"])).setting
    loader = method().batches(setting)
    seen = joined(list(loader))
    forget = seen.tags["forgotten"]
    assert forget.sum() == len(setting.parts["forget"])
    assert (seen.targets[forget] == 3).all()
    assert (~forget).sum() == round(0.3 * len(setting.parts["retain"]))


def test_teachers_are_the_source_and_an_untrained_model_and_stay_so(tmp_path):
    overrides = ["method=bad_teacher", "model.width=4", "training.epochs=1", "method.lr=0.01"]
    bench = Workbench(composed([*overrides, f"output_dir={tmp_path}", "progress=off"]))
    fit, source = bench.method("method"), bench.reference("source").tensors
    new = {name: tensor.clone() for name, tensor in fit.model.state_dict().items()}
    fit.model.load_state_dict(source)
    bench.fit(fit, tmp_path / "run", "fit")
    for teacher, expected in ((fit.teacher, source), (fit.untrained, new)):
        assert all(torch.equal(expected[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not torch.equal(fit.model.head.weight, source["head.weight"])
