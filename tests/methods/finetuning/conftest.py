"""A small source on odd digits, and methods that are fine-tuned from it on even ones."""

import functools

import pytest
import torch

from fisherexp.callbacks.spectral_report import SpectralReport
from fisherexp.config.explain import composed
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

MLP = "model.hidden=[16,12]"
SMALL = ["training.epochs=3", "progress=off", "threads=1"]


@pytest.fixture(scope="session")
def output_dir(tmp_path_factory):
    """Where the source lies, trained once."""
    return tmp_path_factory.mktemp("finetuning")


@pytest.fixture(scope="session")
def make_bench(output_dir):
    """A workbench for a method on the small setting; callbacks join its own fit."""

    def make(method: str, *options: str, callbacks=None) -> Workbench:
        own = [] if any(option.startswith("model=") for option in options) else [MLP]
        given = [f"method={method}", *own, *SMALL, "method.finetune.epochs=2", f"output_dir={output_dir}", *options]
        return Workbench(composed(given), callbacks=callbacks)

    return make


@pytest.fixture(scope="session")
def fitted(make_bench, tmp_path_factory):
    """A method at the end of its fit; made once for all tests, which leave it as it is. `report` watched the fit."""

    @functools.cache
    def fit(method: str, *options: str):
        report = SpectralReport()
        found, _ = finished(make_bench(method, *options, callbacks=[report]), tmp_path_factory.mktemp(method), own=True)
        found.report = report
        return found

    return fit


@pytest.fixture(scope="session")
def source(make_bench) -> dict[str, torch.Tensor]:
    """The source's weights, fresh head and all."""
    return make_bench("full").reference("source").tensors
