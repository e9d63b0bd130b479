"""Small-scale proof of EATA and of what streams do to batch statistics on a part of CIFAR-10: fifteen corruptions.

Margins were set once three seeds had been seen (docs/results/test_time_adaptation.md), a third or more below what those
showed: they keep what was found from getting lost. At a rate of 0.1 EATA forgets here as well, about a third of what
Tent does.
"""

import pytest

from fisherexp.config.explain import composed
from fisherexp.data.datamodule import data_folder
from fisherexp.experiment import run_experiment

CIFAR = data_folder(None) / "cifar10_part.npz"
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not CIFAR.is_file(), reason=f"no part of CIFAR-10 at {CIFAR} (data=arrays)"),
]
FAST = ["method.update.optimizer=sgd", "method.update.lr=0.1"]


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed {}".format)
def after(request, tmp_path_factory):
    """Metrics of a method on a stream; each is run once."""
    output_dir, found = tmp_path_factory.mktemp("cifar10"), {}

    def metrics(name: str, scenario: str, *options: str) -> dict[str, float]:
        if (name, scenario) not in found:
            line = ["experiment=tta_cifar10_small", "data=arrays", f"data.path={CIFAR}", "data.train_size=10000"]
            line += [f"method={name}", f"scenario={scenario}", f"seed={request.param}", *options]
            line += [f"output_dir={output_dir}", "progress=off", "threads=1"]
            record = run_experiment(composed(line), output_dir / f"{name}_{scenario}", line)
            found[name, scenario] = record["metrics"]["after"]
        return found[name, scenario]

    return metrics


def test_eata_forgets_far_less_than_tent_and_errs_less(after):
    source, tent = after("source", "continual"), after("tent", "continual", *FAST)
    eata = after("eata", "continual", *FAST)
    assert tent["clean_error"] - source["clean_error"] >= 8
    # 11.6 and 9.7 points in the mean of the table's three seeds; a seed had 4.1 and 3.9 on another processor, which
    # rounds otherwise.
    assert tent["clean_error"] - eata["clean_error"] >= 3
    assert tent["mean_error"] - eata["mean_error"] >= 3


def test_batch_statistics_help_on_a_continual_stream_only(after):
    error = {name: after("bn_adapt", name)["mean_error"] for name in ("continual", "mixed_domains", "correlated")}
    source = after("source", "continual")["mean_error"]
    assert error["continual"] <= source - 3
    assert error["mixed_domains"] >= source - 2
    assert error["correlated"] >= source + 15


def test_lame_and_rotta_stand_a_correlated_stream(after):
    source = after("source", "continual")["mean_error"]
    assert after("lame", "correlated")["mean_error"] <= source - 7
    assert after("rotta", "correlated")["mean_error"] <= source + 3
