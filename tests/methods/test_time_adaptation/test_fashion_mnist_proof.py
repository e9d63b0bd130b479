"""Small-scale proof of EATA on Fashion-MNIST: fifteen corruptions in a row at a large learning rate.

At published rates all methods tie and nothing is forgotten (docs/results/test_time_adaptation.md).
"""

import pytest

from fisherexp.config.explain import composed
from fisherexp.data.datamodule import data_folder
from fisherexp.experiment import run_experiment

IMAGES = data_folder(None) / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not IMAGES.is_file(), reason=f"no Fashion-MNIST at {IMAGES} (data=fashion_mnist downloads it)"),
]
FAST = ["method.update.optimizer=sgd", "method.update.lr=0.3"]


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed {}".format)
def found(request, tmp_path_factory):
    """Metrics by method."""
    output_dir = tmp_path_factory.mktemp("fashion_mnist")

    def after(name: str, *options: str) -> dict[str, float]:
        line = ["experiment=tta_fashion_mnist", f"method={name}", f"seed={request.param}", *options]
        line += [f"output_dir={output_dir}", "progress=off", "threads=1"]
        return run_experiment(composed(line), output_dir / name, line)["metrics"]["after"]

    return {"source": after("source"), "bn_adapt": after("bn_adapt")} | {m: after(m, *FAST) for m in ("tent", "eata")}


def test_tent_forgets_and_eata_does_not(found):
    assert found["tent"]["clean_error"] - found["source"]["clean_error"] >= 3
    assert found["eata"]["clean_error"] - found["source"]["clean_error"] <= 2


def test_eata_is_the_better_on_corruptions(found):
    # 3.2 points in the mean of the table's three seeds; a seed had 1.8 on another processor, which rounds otherwise.
    assert found["tent"]["mean_error"] - found["eata"]["mean_error"] >= 1


def test_batch_statistics_are_most_of_the_gain(found):
    assert found["bn_adapt"]["mean_error"] <= found["source"]["mean_error"] - 10
