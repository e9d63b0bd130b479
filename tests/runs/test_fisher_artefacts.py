"""KFAC and the low-rank Fisher as artefacts: of the right samples, found again, keyed by their options, never torn."""

import json

import pytest
import torch
from safetensors import safe_open

from fisherexp.config.explain import composed
from fisherexp.curvature import KFAC, LowRankFisher, batch_gradients, fisher_diagonal, kfac
from fisherexp.experiment import run_experiment
from fisherexp.methods.importance import FisherPass, Importance
from fisherexp.methods.structured import GradientRows, KroneckerFactors
from fisherexp.methods.test_time_adaptation.anchor import AnchorImportance
from fisherexp.runs.workbench import Workbench

SMALL = ["data=digits", "model=mlp", "model.hidden=[6]", "scenario=none", "training.epochs=1", "progress=off"]
KINDS = {
    "fisher": Importance(labels="sampled", batch_size=128),
    "kfac": KroneckerFactors(labels="sampled", batch_size=128),
    "low_rank": GradientRows(gradients=6, gradient_batch=32),
}
METHODS = {"kfac": "kfac", "low_rank": "low_rank_fisher"}


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def bench(tmp_path):
    return lambda *overrides: Workbench(composed(["method=erm", *SMALL, f"output_dir={tmp_path}", *overrides]))


def files(bench: Workbench, kind: str) -> list:
    return sorted((bench.store.root / kind).glob("*.safetensors"))


def killed_after(monkeypatch, updates: int) -> None:
    """From now on a pass ends after so many updates."""
    step = FisherPass.training_step

    def limited(self, batch, batch_idx):
        if batch_idx == updates:
            raise Killed
        step(self, batch, batch_idx)

    monkeypatch.setattr(FisherPass, "training_step", limited)


@pytest.mark.parametrize("kind", METHODS)
def test_a_second_run_finds_what_the_first_one_computed(tmp_path, monkeypatch, kind):
    overrides = [f"method={METHODS[kind]}", *SMALL, f"output_dir={tmp_path}"]
    first = run_experiment(composed(overrides), tmp_path / "one", overrides)
    killed_after(monkeypatch, 0)
    second = run_experiment(composed(overrides), tmp_path / "two", overrides)
    assert second["outcome"] == first["outcome"]
    (file,) = (tmp_path / "artefacts" / kind).glob("*.safetensors")
    with safe_open(file, "pt") as header:
        about = json.loads(header.metadata()["about"])
    expected = ("expected", "per_sample") if kind == "kfac" else ("empirical", "batch_mean")
    assert (about["estimator"]["labels"], about["estimator"]["gradients"]) == expected
    assert second["metrics"]["after"]["seconds"] == about["cost"]["seconds"]  # the price does not hide who paid


def test_they_are_those_of_the_training_data_at_the_source(bench):
    here = bench("data.train_size=640")  # ten whole batches of 64 rows
    source = here.reference("source")
    model = here.classifier("check")
    model.load_state_dict(source.tensors)
    train = here.data.train
    factors, _ = here.fisher(KroneckerFactors(labels="empirical"), source)
    expected = kfac(model, [(train.inputs, train.targets)])
    assert factors.count == len(train)
    assert factors.about() == expected.about()
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(factors.tensors()[name], tensor, rtol=1e-4, atol=1e-6)

    # All samples once, one a row: the diagonal is that of the diagonal Fisher.
    low_rank, _ = here.fisher(GradientRows(gradients=len(train), gradient_batch=1, damping=1e-3), source)
    diagonal = fisher_diagonal(model, [(train.inputs, train.targets)])
    flat = torch.cat([values.flatten() for values in diagonal.values()])
    torch.testing.assert_close(low_rank.diagonal(), flat, rtol=1e-4, atol=1e-7)
    first = next(batch_gradients(model, "cross_entropy", [(train.inputs[:1], train.targets[:1])]))
    assert (low_rank.gradients - first).norm(dim=1).min() < 1e-5


@pytest.mark.parametrize(
    ("kind", "one", "others", "same"),
    [
        ("kfac", {}, [{"labels": "pseudo"}, {"approximation": "reduce"}], {"batch_size": 50}),
        ("low_rank", {"gradients": 3}, [{"gradients": 4}, {"gradients": 3, "gradient_batch": 8}], {"damping": 1e-2}),
    ],
)
def test_another_option_is_another_key_unless_it_changes_nothing_that_is_kept(bench, kind, one, others, same):
    here = bench()
    source, make = here.reference("source"), type(KINDS[kind])
    here.fisher(make(**one), source)
    here.fisher(make(**one | same), source)
    assert len(files(here, kind)) == 1
    for options in others:
        here.fisher(make(**options), source)
    assert len(files(here, kind)) == 3
    other = bench("data.train_size=600")
    other.fisher(make(**one), other.reference("source"))
    assert len(files(here, kind)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_computation_leaves_no_half_and_the_next_one_goes_on(bench, monkeypatch, tmp_path, kind):
    """Sampled labels go on in their stream: the result is that of a pass without a stop, bit for bit."""
    here = bench("checkpoint_every=0")
    source = here.reference("source")
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Killed):
            here.fisher(KINDS[kind], source)
    assert files(here, kind) == []
    found, _ = here.fisher(KINDS[kind], source)
    assert len(files(here, kind)) == 1
    assert not list((here.store.root / kind).glob("*.partial"))
    other = bench(f"output_dir={tmp_path / 'other'}")
    expected, _ = other.fisher(KINDS[kind], source)
    assert isinstance(found, KFAC | LowRankFisher) or kind == "fisher"
    for name, tensor in expected.tensors().items():
        assert torch.equal(found.tensors()[name], tensor), name


def test_a_killed_pass_that_dropped_stored_statistics_goes_on(bench, monkeypatch, tmp_path):
    """An anchor of batch means normalizes by the batch, so that its state has no statistics of BatchNorm."""
    importance = AnchorImportance(gradients="batch_mean", samples=300)
    here = bench("model.batch_norm=true", "checkpoint_every=0")
    source = here.reference("source")
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Killed):
            here.fisher(importance, source)
    found, _ = here.fisher(importance, source)
    other = bench("model.batch_norm=true", f"output_dir={tmp_path / 'other'}")
    expected, _ = other.fisher(importance, source)
    assert found.count == 5
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
