"""Small-scale proofs on digits: what a window of gradients, its damping and a low-rank subspace do; three seeds."""

import statistics

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Means over seeds of what a method comes to on the test set, by default as the experiment sets it."""
    output_dir, found = tmp_path_factory.mktemp("optimisers"), {}

    def made(method: str, *options: str) -> dict[str, float]:
        if (method, options) not in found:
            runs = []
            for seed in SEEDS:
                given = ["experiment=optimisers_digits", f"method={method}", f"seed={seed}", *options]
                bench = Workbench(composed([*given, f"output_dir={output_dir}", "progress=off", "threads=1"]))
                fitted = bench.method("method")
                folder = output_dir / str(len(found)) / str(seed)
                bench.fit(fitted, folder, "fit")
                runs.append(bench.test(fitted, folder, "test") | fitted.outcome["metrics"])
            found[method, options] = {name: statistics.fmean(run[name] for run in runs) for name in runs[0]}
        return found[method, options]

    return made
