"""What a policy is worth: exact returns by themselves, estimates against them, and streams of the evaluation's own."""

import pytest
import torch

from fisherexp.config.explain import composed, explain
from fisherexp.problems.environment import Chain, DoubleIntegrator, EnvironmentProblem, Gymnasium
from fisherexp.runs.workbench import Workbench

CHAIN = {"length": 6, "slip": 0.1, "near": 0.1, "far": 1.0, "horizon": 12, "discount": 0.9}
CART = {"dt": 0.5, "push_cost": 0.1, "noise": 0.1, "start_noise": 0.3, "horizon": 20, "discount": 0.95}
CART |= {"eval_episodes": 4000}
POLE = {"name": "CartPole-v1", "horizon": 20, "discount": 0.99, "options": {}, "eval_episodes": 8}
LINE = ["method=reinforce", "progress=off"]


def bench(*overrides):
    found = Workbench(composed([*LINE, *overrides]))
    found.problem.load(0)
    return found


def test_the_uniform_policy_of_the_chain_has_the_return_of_its_definition():
    chain = bench("data=chain")
    found = chain.problem.evaluate(chain.network("policy"))
    assert found == pytest.approx({"return": 0.4995, "gap": 2.8623 - 0.4995}, abs=1e-4)


def test_an_estimated_return_is_the_exact_one_within_its_standard_error(monkeypatch):
    made = bench("data=linear_quadratic", "model=gaussian_policy", "data.eval_episodes=4000")
    policy = made.network("policy")
    exact = made.problem.evaluate(policy)
    assert "standard_error" not in exact
    assert exact["gap"] > 0
    other = made.network("policy")
    torch.nn.init.constant_(other.gain, -0.3)
    monkeypatch.setattr(DoubleIntegrator, "exact_return", EnvironmentProblem.exact_return)
    estimated = made.problem.evaluate(policy)
    assert abs(estimated["return"] - exact["return"]) < 4 * estimated["standard_error"]
    control = made.problem.evaluate(other)
    assert abs(control["return"] - exact["return"]) > 4 * control["standard_error"]


def test_an_evaluation_draws_from_a_stream_of_its_own_and_of_the_seed():
    made = bench("data=linear_quadratic", "model=gaussian_policy", "model.hidden=[4]", "data.eval_episodes=10")
    policy = made.network("policy")
    first = made.problem.evaluate(policy)
    torch.rand(5)
    assert made.problem.evaluate(policy) == first
    assert made.problem.load(1).evaluate(policy) != first


@pytest.mark.parametrize(
    ("kind", "options", "change"),
    [
        *(
            (Chain, CHAIN, {name: value + 1 if name in ("length", "horizon") else value / 2})
            for name, value in CHAIN.items()
        ),
        *(
            (DoubleIntegrator, CART, {name: 2 * CART[name]})
            for name in ("dt", "push_cost", "noise", "start_noise", "horizon")
        ),
        (DoubleIntegrator, CART, {"discount": 0.5}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_option_makes_another_environment_and_the_optimum_another(kind, options, change):
    first, again, other = (kind(**given).load(0) for given in (options, options, options | change))
    assert first.checksum() == again.checksum() != other.checksum()
    assert first.optimal_return != other.optimal_return


def test_a_gymnasium_environment_is_evaluated_by_episodes():
    pytest.importorskip("gymnasium")
    made = bench("data=gymnasium", "model=network_policy", "data.horizon=20", "data.eval_episodes=8")
    found = made.problem.evaluate(made.network("policy"))
    assert 5 < found["return"] <= 20
    assert found["standard_error"] > 0
    assert "gap" not in found
    other = Gymnasium(**POLE | {"discount": 0.5}).load(0)
    assert other.checksum() != made.problem.checksum() == Gymnasium(**POLE).load(0).checksum()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=linear_quadratic", "model=network_policy"], "use model=gaussian_policy"),
        (["data=gymnasium", "model=gaussian_policy"], "use model=network_policy"),
    ],
)
def test_a_policy_of_the_wrong_kind_of_actions_is_refused(overrides, words):
    if "data=gymnasium" in overrides:
        pytest.importorskip("gymnasium")
    with pytest.raises(Exception, match=words):
        bench(*overrides).network("policy")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data=digits", "Reinforce is about a problem of kind environment"),
        ("model=mlp", "this model is for problems of kind supervised"),
        ("data=linear_quadratic", "TablePolicy requires states, DoubleIntegrator provides vectors"),
        ("scenario=continual", "Reinforce needs a plain scenario"),
        ("method=erm", "ERM is about a problem of kind supervised"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(change, words):
    lines = [*LINE, "data=chain", "model=table_policy", change]
    assert any(words in str(problem) for problem in explain(lines)), explain(lines)
