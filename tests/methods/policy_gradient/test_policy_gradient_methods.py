"""The methods as a run has them: budgets, options that matter, resumption, the figure."""

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

METHODS = ("reinforce", "normalized_momentum", "n_pg_igt", "harpg", "n_harpg")
SMALL = ["method.total_episodes=40", "progress=off"]


def begun(name, *overrides, seed=0):
    """A method on its companions before its first step."""
    bench = Workbench(composed([f"method={name}", *SMALL, f"seed={seed}", *overrides]))
    problem = bench.problem.load(seed)
    method = bench.make("method", model=bench.network(name))
    method.begin(problem, seed)
    return method


def done(method):
    while not method.done:
        method.step()
    return method


def theta(method):
    return torch.nn.utils.parameters_to_vector(method.solution().parameters()).detach().clone()


@pytest.mark.parametrize("name", METHODS)
def test_the_budget_is_used_and_not_exceeded(name):
    method = done(begun(name, "method.total_episodes=43"))
    step = 10 if "harpg" in name else 5
    assert 43 - step < method.drawn <= 43
    assert method.metrics() == {"episodes": method.drawn}


@pytest.mark.parametrize("name", METHODS)
def test_episodes_are_counted_as_they_are_drawn(name, monkeypatch):
    from fisherexp.methods.policy_gradient import ascent

    counted = []
    plain = ascent.rollout
    monkeypatch.setattr(ascent, "rollout", lambda *given: counted.append(given[3]) or plain(*given))
    further = ["method.product_episodes=3"] if "harpg" in name else []
    method = done(begun(name, *further))
    assert sum(counted) == method.drawn


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, option) for name in METHODS for option in ("step_size=0.7", "episodes=4", "total_episodes=50")),
        ("reinforce", "normalize=true"),
        ("n_pg_igt", "official_lag=true"),
        ("harpg", "normalize=true"),
        ("harpg", "product_episodes=3"),
        ("n_harpg", "normalize=false"),
    ],
)
def test_every_option_changes_where_the_ascent_ends(name, change):
    first, again, other = (theta(done(begun(name, *given))) for given in ([], [], [f"method.{change}"]))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, theta(done(begun(name, seed=1))))


COMPANIONS = {
    "chain": [],
    "linear_quadratic": ["data=linear_quadratic", "model=gaussian_policy", "method.step_size=0.05"],
    "gymnasium": ["data=gymnasium", "model=network_policy", "data.horizon=10"],
}


@pytest.mark.parametrize("data", COMPANIONS)
@pytest.mark.parametrize("name", ["n_pg_igt", "n_harpg"])
def test_gone_on_with_it_ends_bit_equal(name, data):
    if data == "gymnasium":
        pytest.importorskip("gymnasium")
    whole = done(begun(name, *COMPANIONS[data]))
    cut = begun(name, *COMPANIONS[data])
    cut.step()
    cut.step()
    state = cut.state_dict()
    state = state | {"returns": list(state["returns"])}
    resumed = begun(name, *COMPANIONS[data])
    resumed.load_state_dict(state)
    assert torch.equal(theta(done(resumed)), theta(whole))
    assert resumed.sampled.returns == whole.sampled.returns
    # The control: without the generator's state other episodes would be drawn.
    lost = begun(name, *COMPANIONS[data])
    fresh = lost.sampled.generator.get_state()
    lost.load_state_dict(state | {"generator": fresh})
    assert not torch.equal(theta(done(lost)), theta(whole))


def test_a_budget_that_pays_for_no_step_is_refused():
    with pytest.raises(ValueError, match="total_episodes=4 pays for no step of 5 episodes"):
        begun("reinforce", "method.total_episodes=4")


def test_the_returns_are_drawn(tmp_path):
    done(begun("n_harpg")).leave_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"returns.png", "returns.pdf"}
