"""Small-scale proofs of training objectives, three seeds: unsure samples, decay of weights, and width."""

import statistics

import pytest

from fisherexp.config.explain import composed
from fisherexp.data.datamodule import data_folder
from fisherexp.experiment import run_experiment

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)
TEXT = data_folder(None) / "text" / "tinyshakespeare" / "input.txt"
of_shakespeare = pytest.mark.skipif(not TEXT.is_file(), reason=f"no tiny-Shakespeare at {TEXT}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Metrics of runs by seed: {name: [a value each]}."""
    output_dir, found = tmp_path_factory.mktemp("objectives"), {}

    def made(*options: str) -> dict[str, list[float]]:
        if options not in found:
            runs = []
            for seed in SEEDS:
                given = [
                    *options,
                    f"seed={seed}",
                    f"output_dir={output_dir}",
                    "progress=off",
                    "logger=none",
                    "threads=1",
                ]
                folder = output_dir / "runs" / str(len(found)) / str(seed)
                runs.append(run_experiment(composed([*given, "threads=1"]), folder, [])["metrics"]["after"])
            found[options] = {name: [run[name] for run in runs] for name in runs[0]}
        return found[options]

    return made


def test_shrinkmatch_has_a_use_for_every_sample_at_a_lower_share_of_right_ones(made):
    """40 labels of digits, a short training. Not asked for: an accuracy above FixMatch's, the paper's claim. It is
    level behind sixty passes (docs/guides/objectives.md), and behind it after these fifteen."""
    few = ("experiment=semi_supervised_digits", "scenario.labels=40", "training.epochs=15", "model.width=8")
    fix, shrink = (made(*few, f"method={method}") for method in ("fixmatch", "shrink_match"))
    for seed in range(len(SEEDS)):
        assert shrink["used_share"][seed] > 95 > fix["used_share"][seed]
        assert shrink["used_accuracy"][seed] < fix["used_accuracy"][seed]


@of_shakespeare
def test_seen_a_hundred_times_data_want_a_decay_far_above_the_usual(made):
    """By 0.2 nats with each seed; in the runs of the guide by 0.45 at least."""
    repeated = ("experiment=infinite_compute_char_gpt", "method=erm")
    usual, strong = (made(*repeated, f"training.weight_decay={decay}") for decay in (0.1, 3.0))
    assert all(b <= a - 0.2 for a, b in zip(usual["test_nll"], strong["test_nll"], strict=True))


def settled(made, width: int, decay: float) -> float:
    """Mean over seeds of the largest singular value of the blocks' matrices behind 400 steps at a constant rate, more
    than three times 1/(ηλ), with the rate and decay of a width of 32."""
    short = ("data=tiny_shakespeare", "data.context=32", "data.train_size=400", "data.batch_size=8")
    recipe = ("training=adamw", "training.schedule=constant", "training.warmup_epochs=0", "training.epochs=8")
    rule = ("training.lr=8e-3", "training.weight_decay_rule=width", f"training.width_ratio={width / 32}")
    watch = ("callbacks=[top_singular_values]", "callbacks.top_singular_values.targets=blocks")
    given = ("method=erm", "model=char_gpt", "scenario=none", f"model.dim={width}", f"training.weight_decay={decay}")
    return statistics.fmean(made(*given, *short, *recipe, *rule, *watch)["top_singular_value"])


@of_shakespeare
def test_trained_at_two_widths_matrices_settle_at_one_size_by_the_rule_and_not_with_one_decay(made):
    """A transformer four times as wide; the rule gives its matrices twice the decay, the control the same."""
    narrow, wide, control = settled(made, 32, 2.0), settled(made, 128, 2.0), settled(made, 128, 1.0)
    assert abs(wide / narrow - 1) < 0.15
    assert abs(control / narrow - 1) > 0.15
