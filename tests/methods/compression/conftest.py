"""A small network on digits, trained once a module, and a compression method's fit from there."""

import pytest

from fisherexp.config.explain import composed
from fisherexp.curvature.lanczos import ravel
from fisherexp.runs.workbench import Workbench

SMALL = ["scenario=none", "model=mlp", "model.hidden=[16,16]", "training.epochs=3", "progress=off"]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The method after its fit, the flat weights it began with, and its workbench."""
    output_dir = tmp_path_factory.mktemp("pruning")

    def run(method: str, *overrides: str):
        bench = Workbench(composed([f"method={method}", *SMALL, *overrides, f"output_dir={output_dir}"]))
        fit = bench.method("method")
        fit.model.load_state_dict(bench.trained("source").tensors)
        before = ravel(fit.weights).detach().clone()
        bench.fit(fit, output_dir / "run", "fit")
        return fit, before, bench

    return run
