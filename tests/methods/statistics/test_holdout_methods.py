"""Ways to ask a holdout as methods: rows are those of the pure function, and go on with the same noise."""

import pytest
import torch

from fisherexp.methods.statistics.holdout_methods import NaiveHoldout, SplitHoldout, Thresholdout
from fisherexp.methods.statistics.reusable_holdout import SIZES, reusable_holdout
from fisherexp.problems.reusable_holdout import ReusableHoldout
from fisherexp.seeds import generator

SIZES_SMALL = [0, 5, 10, 20]
KINDS = [NaiveHoldout, Thresholdout, SplitHoldout]


@pytest.fixture(scope="module")
def problem():
    return ReusableHoldout(n=300, d=200).load(seed=1)


def finished(method, problem, seed=0):
    method.begin(problem, seed)
    while not method.done:
        method.step()
    return method


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_pure_function(kind, problem):
    method = finished(kind(SIZES_SMALL), problem, seed=3)
    expected = reusable_holdout(problem.samples, kind.mechanism, generator("holdout", 3), SIZES_SMALL)
    assert torch.equal(method.solution(), torch.stack(expected, dim=1))
    found = problem.evaluate(method.solution())
    assert found["holdout_accuracy"] == pytest.approx(100 * expected.holdout[-1].item())
    assert found["holdout_bias"] == pytest.approx(100 * (expected.holdout - expected.fresh).mean().item())
    assert kind().sizes == list(SIZES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 3])
def test_goes_on_bit_for_bit(kind, stop, problem, tmp_path):
    whole = finished(kind(SIZES_SMALL), problem)
    method = kind(SIZES_SMALL)
    method.begin(problem, 0)
    for _ in range(stop):
        method.step()
    torch.save(method.state_dict(), tmp_path / "state")

    def resumed(change):
        other = kind(SIZES_SMALL)
        other.begin(problem, 0)
        other.load_state_dict(torch.load(tmp_path / "state", weights_only=True) | change)
        while not other.done:
            other.step()
        return other.solution()

    assert torch.equal(resumed({}), whole.solution())
    if kind is Thresholdout and stop == 1:  # the control: with another generator's state the noise is another
        other = generator("another", 0).get_state()
        assert not torch.equal(resumed({"generator": other}), whole.solution())


def test_no_question_is_refused(problem):
    with pytest.raises(ValueError, match=r"method\.sizes=\[\]"):
        NaiveHoldout([]).begin(problem, 0)


def test_the_problem_is_published_at_its_full_size_only():
    assert ReusableHoldout().altered
    assert not ReusableHoldout(n=10_000, d=10_000).altered
    first, other = (ReusableHoldout(n=30, d=25).load(seed).checksum() for seed in (0, 1))
    assert first != other


def test_the_figure_is_left(problem, tmp_path):
    finished(Thresholdout(SIZES_SMALL), problem).leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"accuracies.png", "accuracies.pdf"}


@pytest.mark.proof
def test_a_naive_holdout_overstates_and_thresholdout_does_not():
    """n = d = 2000 without signal, 200 variables, mean of ten repetitions (the paper's have n = d = 10,000)."""
    bias = {NaiveHoldout: 0.0, Thresholdout: 0.0}
    for seed in range(10):
        problem = ReusableHoldout().load(seed)
        for kind in bias:
            found = problem.evaluate(finished(kind([200]), problem, seed).solution())
            bias[kind] += (found["holdout_accuracy"] - found["fresh_accuracy"]) / 10
    assert bias[NaiveHoldout] >= 10
    assert abs(bias[Thresholdout]) <= 5
