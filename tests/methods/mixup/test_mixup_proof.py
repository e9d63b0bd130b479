"""Small-scale proofs: channels on digits, and calibration where plain training is over-confident."""

import pytest
import torch

from fisherexp.callbacks.neural_collapse import NeuralCollapse
from fisherexp.config.explain import composed
from fisherexp.data.datamodule import data_folder
from fisherexp.metrics.channels import LAMBDAS, outward
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
QUARTER = LAMBDAS.index(0.25)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """What the callback saw at the end of 300 epochs on 400 digits, by method."""
    output_dir, found = tmp_path_factory.mktemp("digits"), {}

    def seen(method: str) -> dict[str, torch.Tensor]:
        if method not in found:
            watch = NeuralCollapse([])
            overrides = ["experiment=mixup_digits", f"method={method}", f"output_dir={output_dir}", "progress=off"]
            bench = Workbench(composed(overrides), callbacks=[watch])
            bench.fit(bench.method("method"), output_dir / method, "fit", own=True)
            found[method] = {name: values[-1] for name, values in watch.state_dict().items()}
        return found[method]

    return seen


@pytest.mark.parametrize("method", ["erm", "mixup", "mixup_mse"])
def test_the_terminal_phase_is_reached(digits, method):
    assert digits(method)["clean/accuracy"] == 100


def test_channels_of_mixup_bulge_outwards_and_those_of_the_squared_error_do_not(digits):
    assert outward(digits("mixup")["channels"]) >= 0.15
    assert outward(digits("mixup_mse")["channels"]) < 0.15
    assert outward(digits("erm")["channels"]) < 0.15


def test_outputs_follow_lambda_with_mixup_and_not_with_plain_training(digits):
    """Probability of the class with three quarters of the mixture."""
    assert abs(digits("mixup")["channels"][QUARTER, 1] - 0.75) <= 0.08
    assert abs(digits("erm")["channels"][QUARTER, 1] - 0.75) >= 0.15


CIFAR = data_folder(None) / "cifar10_part.npz"


@pytest.mark.skipif(not CIFAR.is_file(), reason=f"no part of CIFAR-10 at {CIFAR} (data=arrays): nothing to overfit")
def test_mixup_calibrates_where_plain_training_is_over_confident(tmp_path):
    """1500 images for 80 epochs; on digits, where plain training is calibrated, the contrary holds."""
    found = {}
    for method in ("erm", "mixup"):
        overrides = ["experiment=mixup_calibration", f"method={method}", "data=arrays", f"data.path={CIFAR}"]
        bench = Workbench(composed([*overrides, f"output_dir={tmp_path}", "progress=off"]))
        fit = bench.method("method")
        bench.fit(fit, tmp_path / method, "fit")
        found[method] = bench.test(fit, tmp_path / method, "test")
    assert found["mixup"]["test_ece"] <= found["erm"]["test_ece"] / 2
    assert found["mixup"]["test_nll"] < found["erm"]["test_nll"]
    assert found["mixup"]["test_accuracy"] >= found["erm"]["test_accuracy"] - 1
