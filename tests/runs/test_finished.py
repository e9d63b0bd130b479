"""A run's method at the end of its work."""

import shutil

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

SIZES = ["model.width=4", "training.epochs=1", "data.train_size=60", "progress=off"]


@pytest.mark.parametrize(("own", "free", "trained"), [(True, 0, False), (True, 10**6, True), (False, 0, True)])
def test_room_for_the_weights_is_asked_for_before_training(own, free, trained, tmp_path, monkeypatch):
    """Of the run's own model alone, the only one that it leaves in its folder."""
    bench = Workbench(composed(["method=erm", "callbacks=[]", *SIZES, f"output_dir={tmp_path}"]))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=free))
    if trained:
        finished(bench, tmp_path, own)
    else:
        with pytest.raises(OSError, match="the trained model takes"):
            finished(bench, tmp_path, own)
    assert bool(bench.costs) == trained
