"""Experiments that need a GPU and data that are not here: their first batches, on generated images of that shape."""

import numpy as np
import pytest
from safetensors.torch import load_file

from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("experiments"), np.random.RandomState(0)
    for classes in (10, 100):
        arrays = {}
        for split, count in (("train", 300), ("test", 200)):
            arrays[f"{split}_images"] = draw.randint(0, 256, (count, 32, 32, 3), np.uint8)
            arrays[f"{split}_labels"] = np.arange(count) % classes
        np.savez(folder / f"{classes}.npz", **arrays)
    return folder


@pytest.mark.parametrize("method", ["ssd", "retrain_official", "finetune"])
@pytest.mark.parametrize(
    ("experiment", "classes", "label"), [("ssd_paper_cifar100", 100, 69), ("unlearning_cifar10", 10, 3)]
)
def test_first_batch_runs(folder, experiment, classes, label, method):
    data = ["data=arrays", f"data.path={folder / f'{classes}.npz'}", f"data.num_classes={classes}"]
    small = ["model.width=4", "trainer=debug", "progress=off", f"output_dir={folder}", f"scenario.classes=[{label}]"]
    config = composed([f"experiment={experiment}", f"method={method}", *data, *small])
    assert (config.data.augment, config.data.batch_size) == ("crop_flip_rotate", 64)
    run = folder / experiment / method
    record = run_experiment(config, run, [])
    assert record["trial"]
    weights = load_file(run / "weights.safetensors")
    assert weights["head.weight"].shape == (classes, 32)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    if method == "ssd":
        published = {100: 10.0, 10: pytest.approx(0.7 * record["outcome"]["bound"])}
        assert record["outcome"]["alpha"] == published[classes]


def test_first_batch_of_mixup_is_looked_at(folder):
    """A smaller network of the published kind, on small batches; the pictures of its first epoch are there."""
    published = composed(["experiment=mixup_paper_cifar10"])
    assert (published.model.depth, published.model.widen, published.training.epochs) == (40, 10, 500)
    data = ["data=arrays", f"data.path={folder / '10.npz'}", "data.batch_size=16", "data.eval_batch_size=16"]
    look = [f"callbacks.neural_collapse.{option}" for option in ("samples=100", "pairs=10", "points=10")]
    small = [*look, "model.depth=10", "model.widen=1", "trainer=debug", "progress=off", f"output_dir={folder}"]
    config = composed(["experiment=mixup_paper_cifar10", *data, *small])
    run = folder / "mixup"
    record = run_experiment(config, run, [])
    assert record["trial"]
    assert 0 <= record["metrics"]["after"]["test_ece"] <= 1
    seen = load_file(run / "neural_collapse.safetensors")
    assert all(tensor.isfinite().all() for tensor in seen.values())
    assert (run / "projection.png").is_file()
    assert (run / "reliability.png").is_file()
