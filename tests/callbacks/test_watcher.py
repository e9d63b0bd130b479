"""The runner asks what a Watcher declares, and nothing of other callbacks."""

import pytest
from pytorch_lightning import Callback

from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

SMALL = ["method=erm", "scenario=none", "model.width=4", "training.epochs=1", "progress=off"]


class Looks(Watcher):
    watches_fit = needs_gradients = True

    def __init__(self) -> None:
        self.told = []

    def fit_begins(self, setting) -> None:
        self.told.append(setting)


class Alike(Callback):
    """Has the same names, and is none."""

    watches_fit = needs_gradients = True

    def __init__(self) -> None:
        self.told = []

    def fit_begins(self, setting) -> None:
        self.told.append(setting)


@pytest.mark.parametrize(("kind", "asked"), [(Looks, True), (Alike, False)])
def test_what_is_asked(kind, asked, tmp_path):
    callback = kind()
    options = [*SMALL, "trainer.limit_train_batches=1", f"output_dir={tmp_path}"]
    bench = Workbench(composed(options), callbacks=[callback])
    bench.trained("method", tmp_path / "run")
    bench.trained("method", tmp_path / "run")  # known by now: trained once more for a watcher alone
    assert len(callback.told) == (2 if asked else 0)
    assert [setting.parts.keys() for setting in callback.told] == [bench.setting.parts.keys()] * len(callback.told)
    trainer = bench._trainer(bench.method("method"), tmp_path, [], own=True)
    assert trainer.test_loop.inference_mode is not asked
