"""Small-scale proof on generated reports: what the annealed penalty keeps of gap sentences, and what it costs."""

import statistics

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def mean(tmp_path_factory):
    """Means over seeds of the metrics, at λ and with a schedule."""
    output_dir, found = tmp_path_factory.mktemp("reports"), {}

    def metrics(strength: float, schedule: str = "linear_floor") -> dict[str, float]:
        if (strength, schedule) not in found:
            runs = []
            for seed in SEEDS:
                options = [f"method.lambda_={strength}", f"method.schedule={schedule}", f"seed={seed}"]
                given = ["experiment=continual_reports", "method=cstrl", *options, f"output_dir={output_dir}"]
                bench = Workbench(composed([*given, "progress=off", "threads=1"]))
                method = bench.method("method")
                folder = output_dir / f"{len(found)}_{seed}"
                bench.fit(method, folder, "fit")
                runs.append(bench.test(method, folder, "test"))
            found[strength, schedule] = {name: statistics.fmean(run[name] for run in runs) for name in runs[0]}
        return found[strength, schedule]

    return metrics


def test_the_annealed_penalty_keeps_half_of_what_plain_training_loses(mean):
    """At the λ that validation chooses. It is not for nothing: summaries lose up to 4 points."""
    nothing, annealed = mean(0), mean(1e5)
    assert annealed["loss_rise"] < nothing["loss_rise"] / 2
    assert annealed["gap_sentences_accuracy"] >= nothing["gap_sentences_accuracy"] + 10
    assert annealed["summary_accuracy"] >= nothing["summary_accuracy"] - 4


def test_a_weaker_one_costs_nothing_and_keeps_less(mean):
    nothing, annealed = mean(0), mean(1e4)
    assert annealed["summary_accuracy"] >= nothing["summary_accuracy"] - 1
    assert annealed["loss_rise"] < 0.75 * nothing["loss_rise"]


def test_the_constant_penalty_is_the_worse_of_the_two_for_summaries(mean):
    annealed, constant = mean(1e5), mean(1e5, "constant")
    assert constant["summary_accuracy"] <= annealed["summary_accuracy"] - 1
    assert constant["loss_rise"] < annealed["loss_rise"]
