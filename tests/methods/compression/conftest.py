"""A small network on digits, trained once a module, and a compression method's fit from there."""

import pytest

from fisherexp.config.explain import composed
from fisherexp.curvature.vectors import ravel
from fisherexp.runs.finished import resolve_needs
from fisherexp.runs.workbench import Workbench

SMALL = ["scenario=none", "training=small", "training.epochs=3", "progress=off"]
MLP = ["model=mlp", "model.hidden=[16,16]"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The method after its fit, the state it began with, and its workbench. folder: of a fit that is stopped."""
    output_dir = tmp_path_factory.mktemp("compression")

    def run(method: str, *overrides: str, model=MLP, folder=output_dir / "run", callbacks=()):
        config = composed([f"method={method}", *SMALL, *model, *overrides, f"output_dir={output_dir}"])
        bench = Workbench(config, callbacks=list(callbacks))
        fit = bench.method("method")
        artefact = bench.reference("source")
        source = artefact.tensors
        fit.model.load_state_dict(source)
        resolve_needs(bench, fit, artefact)
        bench.announce(fit)
        if fit.epochs:
            bench.fit(fit, folder, "fit", own=True)
        return fit, source, bench

    return run


@pytest.fixture(scope="module")
def pruned(fitted):
    """The method after its fit, the flat weights it began with, and its workbench."""

    def run(method: str, *overrides: str):
        fit, source, bench = fitted(method, *overrides)
        return fit, ravel({name: source[name] for name in fit.weights}), bench

    return run


@pytest.fixture(scope="module")
def compressed(fitted):
    """The method after its fit, and the state it began with."""

    def run(method: str, *overrides: str, **options):
        return fitted(method, *overrides, **options)[:2]

    return run
