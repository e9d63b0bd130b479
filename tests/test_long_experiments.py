"""Experiments that need a GPU and data that are not here: their first batches, on generated images in CIFAR's files.

Reading, checking, augmentation, recipe, batch size and methods are those of the experiment. The network is narrower,
and the checksums are those of the generated files.
"""

import hashlib
import pickle

import numpy as np
import pytest
from safetensors.torch import load_file

from fisherexp.config.explain import composed
from fisherexp.data.torchvision_sets import CIFAR10, CIFAR100
from fisherexp.experiment import run_experiment

# Besides erm and retrain, which every one of them needs as its source and oracle.
PAPER = ["retrain_official", "ssd", "finetune", "bad_teacher", "amnesiac", "unsir"]
RUNS = [("ssd_paper_cifar100", 100, 69, method) for method in PAPER]
RUNS += [("unlearning_cifar10", 10, 3, method) for method in ("ssd", "retrain_official", "scrub")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, draw, patch = tmp_path_factory.mktemp("experiments"), np.random.RandomState(0), pytest.MonkeyPatch()
    for data in (CIFAR10, CIFAR100):
        (folder / data.folder).mkdir()
        for split, count in (("train_files", 300), ("test_files", 200)):
            checksums = {}
            for name in getattr(data, split):
                batch = {"data": draw.randint(0, 256, (count, 3072), np.uint8)}
                content = pickle.dumps(
                    batch | {data.label_key: list(range(data.num_classes)) * (count // data.num_classes)}
                )
                (folder / data.folder / name).write_bytes(content)
                checksums[name] = hashlib.md5(content).hexdigest()
            patch.setattr(data, split, checksums)
    yield folder
    patch.undo()


@pytest.mark.parametrize(("experiment", "classes", "label", "method"), RUNS)
def test_first_batch_runs(folder, experiment, classes, label, method):
    small = ["model.width=4", "trainer=debug", "progress=off", f"data.root={folder}", f"output_dir={folder}"]
    config = composed([f"experiment={experiment}", f"method={method}", *small, f"scenario.classes=[{label}]"])
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
