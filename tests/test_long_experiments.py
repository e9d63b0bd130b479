"""Experiments that need a GPU and data that are not here: their first batches, on generated images in CIFAR's files.

Reading, checking, augmentation, recipe, batch size and methods are those of the experiment. The network is narrower,
and the checksums are those of the generated files.
"""

import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from fisherexp.config.explain import composed
from fisherexp.config.nodes import attribute
from fisherexp.data.torchvision_sets import CIFAR10, CIFAR100
from fisherexp.experiment import run_experiment

pytestmark = pytest.mark.end_to_end  # ImageNet's own images and network take minutes

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


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A thousand classes of one image of 32 pixels in train/ and val/, and two corrupted copies of the latter."""
    root, draw = tmp_path_factory.mktemp("imagenet"), np.random.RandomState(0)
    parts = ["imagenet/train", "imagenet/val", "ImageNet-C/gaussian_noise/5", "ImageNet-C/contrast/5"]
    for part in parts:
        for label in range(1000):
            folder = root / part / f"n{label:08}"
            folder.mkdir(parents=True)
            Image.fromarray(draw.randint(0, 256, (32, 32, 3), np.uint8)).save(folder / "one.png")
    return root


@pytest.mark.parametrize(("method", "in_fog"), [("source", 75.6), ("tent", 42.5), ("eata", 40.1)])
def test_first_batches_of_imagenet_c_run(imagenet, method, in_fog):
    """ResNet-50 with its own head, untrained as the weights are not here, on published files."""
    small = ["data.image_size=32", "scenario.images=100", "scenario.corruptions=[gaussian_noise,contrast]"]
    small += ["model.pretrained=false", f"data.root={imagenet}", f"output_dir={imagenet}/outputs", "threads=1"]
    small += ["method.importance.samples=100"] if method == "eata" else []
    config = composed(["experiment=eata_paper_imagenetc", f"method={method}", "progress=off", *small])
    assert (config.training.epochs, config.model.own_head, config.scenario.batch_size) == (0, True, 64)
    run = imagenet / "outputs" / method
    record = run_experiment(config, run, [])
    assert record["setting"]["corruptions"] == str(imagenet / "ImageNet-C")
    assert record["published"] == {}  # which are of all images under all corruptions
    assert attribute(config, "method", "published", {})["imagenet/reset_each_shift"]["error/fog"] == (in_fog,)
    weights = load_file(run / "weights.safetensors")
    assert weights["head.weight"].shape == (1000, 2048)
    assert all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point())
    outcome = record["outcome"]
    assert (outcome["samples"], outcome["updates"]) == (200, {"tent": 4}.get(method, 0))
    assert (outcome["distance"] > 0) == (method == "tent")  # an untrained model is certain of nothing, and EATA waits


def test_first_batch_of_mixup_is_looked_at(folder):
    """A smaller network of the published kind, on small batches; the pictures of its first epoch are there."""
    published = composed(["experiment=mixup_paper_cifar10"])
    assert (published.model.depth, published.model.widen, published.training.epochs) == (40, 10, 500)
    data = [f"data.root={folder}", "data.batch_size=16", "data.eval_batch_size=16"]
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
