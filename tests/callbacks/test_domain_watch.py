"""The transfer measure and the geometry of heads against their second-order truth; what a watched run leaves."""

import json

import pytest
import torch

from fisherexp.callbacks.domain_watch import geometry
from fisherexp.callbacks.transfer import head_loss, transfer_measure
from fisherexp.config.explain import composed
from fisherexp.experiment import run_experiment

drawn = torch.Generator().manual_seed(0)


def domain(n=40, d=3, classes=3):
    features = torch.randn(n, d, dtype=torch.float64, generator=drawn)
    return features, torch.randint(classes, (n,), generator=drawn)


HEAD = torch.randn(3, 4, dtype=torch.float64, generator=drawn)
SOURCE, TARGET = domain(), domain(30)


def test_nothing_is_lost_between_equal_domains():
    assert transfer_measure(SOURCE, SOURCE, HEAD, delta=0.5) == 0


def test_small_balls_give_the_first_order():
    """sup over a ball of radius δ of a linear function: δ ||g_T - g_S||."""
    head = HEAD.clone().requires_grad_()
    (slope,) = torch.autograd.grad(head_loss(head, TARGET) - head_loss(head, SOURCE), head)
    for delta in (1e-3, 1e-4):
        found = transfer_measure(SOURCE, TARGET, HEAD, delta)
        assert found == pytest.approx(delta * slope.norm().item(), rel=10 * delta)


@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_no_random_head_in_the_ball_transfers_worse(delta):
    found = transfer_measure(SOURCE, TARGET, HEAD, delta, steps=200)
    for _ in range(300):
        offset = torch.randn(3, 4, dtype=torch.float64, generator=drawn)
        offset *= delta / offset.norm()
        excess = [head_loss(HEAD + offset, part) - head_loss(HEAD, part) for part in (TARGET, SOURCE)]
        assert (excess[0] - excess[1]).item() <= found + 1e-12


def test_geometry_of_heads():
    logits = [features @ HEAD[:, :-1].T + HEAD[:, -1] for features, _ in (SOURCE, TARGET)]
    domains = {
        "one": (SOURCE[0], logits[0], SOURCE[1]),
        "copy": (SOURCE[0], logits[0], SOURCE[1]),
        "target": (TARGET[0], logits[1], TARGET[1]),
    }
    found = geometry(domains, HEAD, delta=1e-3)

    def hessian(part):
        return torch.autograd.functional.hessian(lambda w: head_loss(w, part), HEAD).reshape(12, 12)

    difference = hessian(SOURCE) - hessian(TARGET)
    assert found["frobenius_training"] < 1e-7
    assert found["frobenius_target"] == pytest.approx(difference.norm().item(), rel=1e-9)
    assert found["spectral_target"] == pytest.approx(torch.linalg.matrix_norm(difference, 2).item(), rel=1e-3)
    assert found["gradient_norm"]["one"] == found["gradient_norm"]["copy"]
    assert 0.9 * found["transfer_bound"] < found["transfer"] <= found["transfer_bound"] * (1 + 1e-3)


def test_a_watched_run_keeps_its_records_and_is_not_disturbed(tmp_path):
    small = [
        "method=hgp",
        "data=colored_digits",
        "scenario=domains",
        "model=mlp",
        "model.hidden=[8]",
        "progress=off",
        "training=small",
        "training.epochs=5",
        "logger=none",
        "trainer=cpu",
        "threads=1",
    ]
    watched = [*small, "callbacks=[domain_watch]", "callbacks.domain_watch.every=2"]

    def run(name, overrides):
        cfg = composed([*overrides, f"output_dir={tmp_path}"])
        (tmp_path / name).mkdir()
        return run_experiment(cfg, tmp_path / name, overrides)

    plain, first = run("plain", small), run("first", watched)
    records = first["outcome"]["domain_watch"]
    assert [record["step"] for record in records] == [2, 4, 5]
    price = ("seconds", "forward_samples", "backward_samples")
    after = {name: value for name, value in first["metrics"]["after"].items() if name not in price}
    assert {name: records[-1][name] for name in after} == after
    assert after == {name: plain["metrics"]["after"][name] for name in after}
    assert (tmp_path / "first" / "domain_watch.png").stat().st_size > 10_000
    second = run("second", watched)  # watched once more, it looks the same
    assert json.loads(json.dumps(second["outcome"])) == json.loads(json.dumps(first["outcome"]))
    assert (tmp_path / "second" / "domain_watch.png").is_file()
