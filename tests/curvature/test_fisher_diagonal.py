"""The container: algebra, addressing, files."""

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fisherexp.curvature import Estimator, FisherDiagonal


def make(seed=0, count=4.0, **estimator):
    generator = torch.Generator().manual_seed(seed)
    values = {"a.weight": torch.rand(3, 2, generator=generator), "b": torch.rand(4, generator=generator)}
    fields = {"labels": "empirical", "gradients": "per_sample", "loss": "cross_entropy"}
    return FisherDiagonal(values, Estimator(**(fields | estimator)), count)


def test_addressing():
    fisher = make()
    assert fisher.names == list(fisher) == ["a.weight", "b"]
    assert len(fisher) == 2
    assert "b" in fisher
    assert "c" not in fisher
    with pytest.raises(ValueError, match=r"did you mean 'a\.weight'"):
        fisher["a.wieght"]


def test_quadratic_and_trace():
    fisher = make()
    delta = {n: torch.randn_like(v).requires_grad_() for n, v in fisher.items()}
    dense = torch.cat([v.flatten() for _, v in fisher.items()])
    d = torch.cat([v.flatten() for v in delta.values()])
    torch.testing.assert_close(fisher.quadratic(delta), (d @ torch.diag(dense) @ d))
    torch.testing.assert_close(fisher.trace().float(), dense.sum())
    gradient = torch.autograd.grad(fisher.quadratic(delta), delta["b"])[0]
    torch.testing.assert_close(gradient, 2 * fisher["b"] * delta["b"])


def test_quadratic_of_a_model():
    model = nn.Linear(2, 3)
    fisher = FisherDiagonal({"weight": torch.rand(3, 2)}, make().estimator, 1.0)
    origin = {n: p.detach() - 1 for n, p in model.named_parameters()}
    torch.testing.assert_close(fisher.quadratic(model, origin), fisher["weight"].sum())
    with pytest.raises(ValueError, match="origin"):
        fisher.quadratic(model)
    with pytest.raises(ValueError, match="one without 'weight'"):
        fisher.quadratic({})


def test_arithmetic():
    one, two = make(0, 1.0), make(1, 3.0)
    combined = FisherDiagonal.combine([one, two])
    assert combined.count == 4
    torch.testing.assert_close(combined["b"], 0.25 * one["b"] + 0.75 * two["b"])
    torch.testing.assert_close((2 * one + two / 4)["b"], 2 * one["b"] + two["b"] / 4)
    assert one.clamp(0.2, 0.5)["b"].min() >= 0.2
    assert one.clamp(maximum=0.5)["b"].max() <= 0.5
    assert one.to(torch.float64)["b"].dtype == torch.float64


@pytest.mark.parametrize("by", ["trace", "mean", "max"])
def test_normalize(by):
    flat = torch.cat([v.flatten() for _, v in make().normalize(by).items()])
    measure = {"trace": flat.sum(), "mean": flat.mean(), "max": flat.max()}[by]
    torch.testing.assert_close(measure, torch.tensor(1.0))
    zero = make() * 0.0
    assert zero.normalize(by).trace() == 0


def test_refusals():
    with pytest.raises(ValueError, match="estimators"):
        make() + make(gradients="batch_mean", batch_size=8)
    with pytest.raises(ValueError, match="parameters"):
        make() + FisherDiagonal({"b": torch.zeros(4)}, make().estimator, 1.0)
    with pytest.raises(ValueError, match="nothing"):
        FisherDiagonal.combine([])
    with pytest.raises(ValueError, match="did you mean 'trace'"):
        make().normalize("traces")


def test_file(tmp_path):
    shared = torch.rand(6)
    fisher = FisherDiagonal({"x": shared[:4], "y": shared[2:]}, Estimator("sampled", "batch_mean", "token", 16), 2.5)
    path = tmp_path / "new" / "fisher.safetensors"
    fisher.save(path)
    loaded = FisherDiagonal.load(path)
    assert (loaded.estimator, loaded.count, loaded.names) == (fisher.estimator, 2.5, ["x", "y"])
    assert all(torch.equal(loaded[n], fisher[n]) for n in fisher)
    assert os.listdir(path.parent) == ["fisher.safetensors"]


def test_torn_and_foreign_files(tmp_path, monkeypatch):
    path = tmp_path / "fisher.safetensors"
    make().save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        make(1).save(path)
    assert torch.equal(FisherDiagonal.load(path)["b"], make()["b"])  # the earlier file is whole
    assert os.listdir(tmp_path) == ["fisher.safetensors"]
    save_file({"b": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a saved FisherDiagonal"):
        FisherDiagonal.load(tmp_path / "other.safetensors")
