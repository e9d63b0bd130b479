"""The quadratic penalty: value, gradient, schedule; and that nothing of it is left at zero strength."""

import pytest
import torch

from fisherexp.methods.continual_learning.anchored import quadratic, strength

torch.manual_seed(0)
THETA, ANCHOR, OMEGA = ({"w": torch.randn(3, 4).double(), "b": torch.rand(4).double()} for _ in range(3))


def test_gradient_is_twice_the_stiffness_times_the_displacement():
    parameters = {name: p.clone().requires_grad_() for name, p in THETA.items()}
    value = quadratic(parameters, OMEGA, ANCHOR)
    assert value.item() == pytest.approx(
        sum(float(OMEGA[n].flatten() @ (THETA[n] - ANCHOR[n]).flatten() ** 2) for n in THETA)
    )
    value.backward()
    for name, p in parameters.items():
        torch.testing.assert_close(p.grad, 2 * OMEGA[name] * (THETA[name] - ANCHOR[name]))


def test_at_the_anchor_value_and_gradient_are_zero():
    parameters = {name: p.clone().requires_grad_() for name, p in ANCHOR.items()}
    value = quadratic(parameters, OMEGA, ANCHOR)
    value.backward()
    assert value == 0
    assert all((p.grad == 0).all() for p in parameters.values())


def test_strength_falls_by_epochs_to_its_floor():
    fallen = [strength("linear_floor", 0.9, 0.2, epoch, 10) for epoch in range(10)]
    assert fallen == pytest.approx([0.9, 0.81, 0.72, 0.63, 0.54, 0.45, 0.36, 0.27, 0.2, 0.2])
    assert {strength("constant", 0.9, 0.2, epoch, 10) for epoch in range(10)} == {0.9}
    assert {strength("linear_floor", 0.1, 0.2, epoch, 10) for epoch in range(10)} == {0.1}


@pytest.fixture
def fitted(make_bench, tmp_path):
    """A method after its fit, from the same weights and random streams whatever its name."""

    def fit(method: str, *options: str):
        bench = make_bench(method, *options)
        made = bench.method("method")
        made.model.load_state_dict(make_bench("sequential").method("method").model.state_dict())
        bench.fit(made, tmp_path / method / "fit", "fit")
        return made

    return fit


def test_zero_strength_is_plain_training_bit_for_bit(fitted, anchored_method):
    plain, made = fitted("sequential"), fitted(anchored_method, "method.lambda_=0")
    assert made.memory["anchors"]
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], tensor), name
    assert made.outcome["accuracy"] == plain.outcome["accuracy"]


def test_a_firm_anchor_holds_the_solution_of_the_first_task(fitted, anchored_method):
    loose, firm = fitted(anchored_method, "method.lambda_=0"), fitted(anchored_method, "method.lambda_=1e5")
    assert firm.outcome["penalty"] < 0.1 * loose.outcome["penalty"]


def test_the_annealed_penalty_is_weaker_than_the_constant_one(fitted):
    options = ("method.lambda_=1", "method.floor=0.01")
    constant, annealed = (fitted("l2_sp", *options, f"method.schedule={s}") for s in ("constant", "linear_floor"))
    assert annealed.outcome["penalty"] > constant.outcome["penalty"]
