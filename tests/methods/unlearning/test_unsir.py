"""UNSIR: what noise minimizes, that learning it leaves the model alone, and what the two passes are made of."""

import copy

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.data.batch import joined
from fisherexp.methods.unlearning.unsir import noise_loss
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)


def test_noise_loss_is_minus_cross_entropy_plus_squared_length():
    logits, labels = torch.randn(3, 4, dtype=torch.float64), torch.tensor([1, 0, 1])
    noise = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    expected = 0.0
    for i in range(3):
        log_probability = logits[i, labels[i]] - logits[i].exp().sum().log()
        expected += (log_probability + 0.1 * sum(v**2 for v in noise[i].flatten())) / 3
    torch.testing.assert_close(noise_loss(logits, labels, noise, 0.1), expected)


@pytest.fixture
def unsir(tmp_path):
    def build(*overrides: str):
        small = ["method=unsir", "model.width=4", "training.epochs=2", f"output_dir={tmp_path}", "progress=off"]
        bench = Workbench(composed([*small, "method.copies=3", "method.per_class=20", *overrides]))
        return bench, bench.method("method")

    return build


def test_passes_are_noise_with_retained_samples_then_retained_samples(unsir):
    bench, fit = unsir("scenario.classes=[3,5]")
    impair, repair = fit.batches(bench.setting).loaders
    impair, repair = joined(list(impair)), joined(list(repair))
    noisy = impair.tags["noise"] >= 0
    assert torch.bincount(impair.tags["noise"][noisy]).tolist() == [3] * 64
    assert fit.noise_labels.tolist() == [3] * 32 + [5] * 32
    expected = [0 if c in (3, 5) else 20 for c in range(10)]
    assert torch.bincount(impair.targets[~noisy], minlength=10).tolist() == expected
    assert torch.bincount(repair.targets, minlength=10).tolist() == expected
    assert (repair.tags["noise"] == -1).all()


def test_learning_noise_raises_its_loss_and_leaves_the_model_alone(unsir):
    bench, fit = unsir()
    fit.model.load_state_dict(bench.reference("source").tensors)
    fit.batches(bench.setting)
    before = copy.deepcopy(fit.model.state_dict())
    noise = fit.learned(fit.start_noise)
    assert all(torch.equal(before[name], tensor) for name, tensor in fit.model.state_dict().items())
    assert all(weight.grad is None for weight in fit.model.parameters())
    fit.model.eval()
    first, last = (
        noise_loss(fit.model(fit.as_images(n)), fit.noise_labels, n, fit.noise_weight) for n in (fit.start_noise, noise)
    )
    assert last < first


def test_the_backbone_sees_the_noise_itself(unsir):
    bench, fit = unsir()
    fit.batches(bench.setting)
    torch.testing.assert_close(fit.model.normalize(fit.as_images(fit.start_noise)), fit.start_noise, atol=1e-5, rtol=0)


def test_a_class_that_is_also_retained_is_refused(unsir):
    bench, fit = unsir("scenario=random_forgetting")
    with pytest.raises(ValueError, match="whole classes"):
        fit.batches(bench.setting)
