"""Forget sets as small as they can be, and weights as narrow as they can be."""

import copy
import math

import pytest
import torch
from torch import nn

from fisherexp.catalogue import entries
from fisherexp.config.explain import composed
from fisherexp.curvature import fisher_diagonal
from fisherexp.experiment import run_experiment
from fisherexp.methods.unlearning.dampening import dampen_model

FORGETS = [entry for entry in entries("method", []) if "forgetting" in entry.attributes.get("scenarios", ())]
METHODS = [entry.name for entry in FORGETS]
OF_TEXT = [entry.name for entry in FORGETS if entry.attributes.get("requires") == ("next_tokens",)]
SMALL = ["scenario=random_forgetting", "training.epochs=1", "progress=off"]
IMAGES = [*SMALL, "data=digits", "data.train_size=200", "model=small_cnn", "data.batch_size=100", "model.width=4"]
OWN = {"loku": ["method.targets=convolution"]}  # the small network has no linear layer but its head
TEXTS = [*SMALL, "data=reports", "data.reports=40", "data.test_reports=10", "model.dim=16"]


def small(method: str, fraction: float | None = None) -> list[str]:
    """A run of the method on images, or on texts if it takes no other. fraction: None for a single sample."""
    if fraction is None:
        fraction = 1 / 40 if method in OF_TEXT else 1 / 200
    parts = [*(TEXTS if method in OF_TEXT else IMAGES), *OWN.get(method, [])]
    return [*parts, f"method={method}", f"scenario.fraction={fraction}"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("edges")


@pytest.mark.parametrize("method", METHODS)
def test_one_sample_is_forgotten_or_refused_in_one_line(method, outputs):
    config = composed([*small(method), f"output_dir={outputs}"])
    if method == "unsir":
        with pytest.raises(ValueError, match=r"^unsir forgets whole classes"):
            run_experiment(config, outputs / method, [])
        return
    metrics = run_experiment(config, outputs / method, [])["metrics"]["after"]
    if method in OF_TEXT:
        assert all(math.isfinite(value) for value in metrics.values())
        return
    assert metrics["forget_accuracy"] in (0.0, 100.0)
    assert 0 <= metrics["retain_accuracy"] <= 100


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("fraction", "what"), [(0.0, "no training sample"), (1.0, "every training sample")])
def test_nothing_and_everything_is_refused_before_anything_is_trained(method, fraction, what, tmp_path):
    config = composed([*small(method, fraction), f"output_dir={tmp_path}"])
    with pytest.raises(ValueError, match=what):
        run_experiment(config, tmp_path / "run", [])
    assert not list(tmp_path.rglob("*.safetensors"))


def test_forgetting_everything_selects_nothing_from_alpha_one_on():
    """D_f = D: both importances are one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    batches = [(torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 3, (20,)))]
    before, fisher = copy.deepcopy(model.state_dict()), dict(fisher_diagonal(model, batches).items())
    assert dampen_model(model, fisher, fisher, alpha=1.0, lambda_=0.5)["selected"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("group", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_below_the_range_of_half_precision_are_kept(dtype, group):
    """Of a sure model: gradients of 1e-4, whose squares are zero in float16."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).to(dtype)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    images, labels = torch.rand(4, 4, dtype=dtype), torch.zeros(4, dtype=torch.int64)
    options = {"gradients": "batch_mean" if group else "per_sample", "group": group}
    found = fisher_diagonal(model, [(images, labels)], **options)
    exact = fisher_diagonal(copy.deepcopy(model).double(), [(images.double(), labels)], **options)
    assert (exact["weight"].half() == 0).any()
    assert (found["weight"] > 0).all()
    torch.testing.assert_close(found["weight"].double(), exact["weight"], rtol=5e-2, atol=0)


@pytest.mark.parametrize("gradients", ["per_sample", "batch_mean"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_importances_of_narrow_weights_are_summed_in_32_bits(dtype, tolerance, gradients):
    """Against the same weights in float64. Summed in its own bits, bfloat16 would stall after 256 equal terms."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    batch = torch.randn(4, 6, dtype=dtype), torch.randint(0, 3, (4,))
    found = fisher_diagonal(model, [batch] * 600, gradients=gradients)
    images, labels = batch
    exact = fisher_diagonal(copy.deepcopy(model).double(), [(images.double(), labels)], gradients=gradients)
    for name in exact.names:
        assert found[name].dtype == torch.float32
        scale = exact[name].max().item()
        torch.testing.assert_close(found[name].double(), exact[name], rtol=tolerance, atol=tolerance * scale)
