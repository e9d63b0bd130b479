"""UniQL on a small GPT that repeats blocks of tokens: what its order is worth, and training once for all rates."""

from itertools import pairwise

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS, RATES = (0, 1, 2), (0.15, 0.25, 0.35)


@pytest.fixture(scope="module")
def likelihood(tmp_path_factory):
    """Test NLL of a run."""
    output_dir = tmp_path_factory.mktemp("uniql")

    def run(seed: int, rate: float, *overrides: str) -> float:
        options = [f"method.{option}" for option in (f"rate={rate}", "bits=null", "layer_rates=uniform", *overrides)]
        data = ["data=repeated_blocks", "model=small_gpt", "training=repeated_blocks", f"seed={seed}", "progress=off"]
        bench = Workbench(composed(["method=uniql", *data, *options, f"output_dir={output_dir}"]))
        fit = bench.method("method")
        fit.model.load_state_dict(bench.reference("source").tensors)
        bench.announce(fit)
        bench.fit(fit, output_dir / "run", "fit", own=True)
        return bench.test(fit, output_dir / "run", "test")["test_nll"]

    return run


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_order_is_worth(likelihood, seed):
    """At every rate what the cut costs by importance is less than half of what it costs by magnitude, which is less
    than half of that at random."""
    untrained = "finetune.epochs=0"
    whole = likelihood(seed, 0.0, untrained)
    for rate in RATES:
        costs = [likelihood(seed, rate, untrained, f"by={by}") - whole for by in ("importance", "magnitude", "random")]
        assert all(less < 0.5 * more for less, more in pairwise(costs)), (rate, costs)


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_training_once_serves_every_rate(likelihood, seed):
    for rate in RATES:
        assert likelihood(seed, rate) < likelihood(seed, rate, "finetune.epochs=0")
