"""Small-scale proof of FedSVD under noise: rates and noise multipliers, three seeds."""

import statistics

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory):
    """Of each seed, in % of even digits; made once for all tests."""
    output_dir, known = tmp_path_factory.mktemp("private"), {}

    def one(variant: str, noise: float, lr: float, seed: int) -> float:
        own = [f"method.variant={variant}", f"method.noise_multiplier={noise}", f"method.finetune.lr={lr}"]
        line = ["method=fed_svd", *own, f"seed={seed}", f"output_dir={output_dir}", "progress=off", "threads=1"]
        bench, folder = Workbench(composed(line)), output_dir / f"{variant} {noise} {lr} {seed}"
        method = bench.method("method")
        method.model.load_state_dict(bench.reference("source").tensors)
        bench.announce(method)
        bench.fit(method, folder, "fit")
        return bench.test(method, folder, "test")["test_accuracy"]

    def each(variant: str, noise: float, lr: float) -> list[float]:
        if (key := (variant, noise, lr)) not in known:
            known[key] = [one(*key, seed) for seed in SEEDS]
        return known[key]

    return each


def mean(found: list[float]) -> float:
    return statistics.fmean(found)


def test_noise_costs_most_where_both_factors_carry_it_and_least_where_one_is_frozen(accuracy):
    """From multiplier 0 to 2 at rate 2, in points: FedAvg 27, FedSVD 9, FFA-LoRA 4; the latter two so in each seed."""
    lost = {}
    for variant in ("fedavg_lora", "fed_svd", "ffa_lora"):
        pairs = zip(accuracy(variant, 0.0, 2), accuracy(variant, 2.0, 2), strict=True)
        lost[variant] = [without - noised for without, noised in pairs]
    assert mean(lost["fedavg_lora"]) > mean(lost["fed_svd"]) + 8
    assert mean(lost["fed_svd"]) > mean(lost["ffa_lora"]) + 2
    assert all(one > other for one, other in zip(lost["fed_svd"], lost["ffa_lora"], strict=True))


def test_at_the_published_rate_orthonormal_factors_are_better_with_every_noise(accuracy):
    for noise in (0.0, 1.0, 2.0):
        assert mean(accuracy("fed_svd", noise, 0.5)) > mean(accuracy("ffa_lora", noise, 0.5)) + 2


def test_at_the_better_rate_of_each_they_are_not_once_there_is_noise(accuracy):
    """A null: FedSVD is to be no worse at each noise. Without any it is ahead, 93.8 to 92.0; with multiplier 1, 89.7 to
    91.3, with 2, 87.6 to 87.7, where seeds differ by three to five points. Frozen factors bear the larger rate."""
    gain = {}
    for noise in (0.0, 1.0, 2.0):
        best = [max(mean(accuracy(v, noise, lr)) for lr in (0.5, 2)) for v in ("fed_svd", "ffa_lora")]
        gain[noise] = best[0] - best[1]
    assert gain[0.0] > 0.5
    assert all(-4 < gain[noise] < 1 for noise in (1.0, 2.0))
    for noise in (1.0, 2.0):
        assert mean(accuracy("ffa_lora", noise, 2)) > mean(accuracy("ffa_lora", noise, 0.5)) + 2
