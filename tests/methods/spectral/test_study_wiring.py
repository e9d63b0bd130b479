"""What the studies make of their options: the curvature they ask for, the files and figures they leave."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fisherexp.curvature import LowRankFisher, fisher_diagonal, kfac
from fisherexp.methods.spectral import fisher as study
from fisherexp.methods.spectral.low_rank_fisher import LowRankStudy
from fisherexp.methods.structured import GradientRows, KroneckerFactors

torch.manual_seed(0)
INPUTS, LABELS = torch.randn(7, 2, 6, dtype=torch.float64), torch.randint(3, (7,))


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
@pytest.mark.parametrize("labels", ["empirical", "expected"])
def test_kronecker_factors_are_those_that_are_named(approximation, labels):
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 3)).double()
    accumulator = KroneckerFactors(labels=labels, approximation=approximation).accumulator(model, seed=0)
    accumulator.update(INPUTS, LABELS)
    found = accumulator.result()
    expected = kfac(model, [(INPUTS, LABELS)], approximation=approximation, labels=labels)
    for name, factor in expected.factors.items():
        torch.testing.assert_close(found.factors[name].a, factor.a)
        torch.testing.assert_close(found.factors[name].b, factor.b)


@pytest.mark.parametrize(("gradients", "batches"), [(4, 1), (5, 2), (30, 8)])
def test_gradient_rows_go_round_until_there_are_enough(gradients, batches):
    """Loader batches of four rows; an incomplete one counts."""
    loader = lambda *_, batch_size, **__: range(32 // batch_size)  # noqa: E731
    setting = SimpleNamespace(parts={"train": range(32)}, loader=loader)
    _, lengths = GradientRows(gradients=gradients, gradient_batch=8).passes(setting, "train")
    assert sum(lengths) * 4 >= gradients
    assert sum(lengths) == batches


@pytest.mark.parametrize("damping", [1e-5, 0.5])
def test_the_low_rank_study_solves_with_its_damping(tmp_path, damping):
    rows = torch.randn(4, 9, dtype=torch.float64)
    method = LowRankStudy(nn.Linear(2, 2), GradientRows(damping=damping))
    method.given["low_rank"] = LowRankFisher(rows)
    method.leave_files(tmp_path)
    found, dense = load_file(tmp_path / "low_rank.safetensors"), rows.T @ rows / 4
    torch.testing.assert_close(found["diagonal"], dense.diagonal())
    inverse = torch.linalg.inv(dense + damping * torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(found["inverse_diagonal"], inverse.diagonal(), rtol=1e-4, atol=1e-8)


def test_how_few_entries_have_half_the_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "draw", lambda fisher, stem: None)
    model = nn.Linear(6, 3).double()
    method = study.Fisher(model, None)
    method.given["fisher"] = fisher_diagonal(model, [(INPUTS[:, 0], LABELS)], labels="empirical")
    method.leave_files(tmp_path)
    values = sorted((v for part in method.given["fisher"].values() for v in part.flatten().tolist()), reverse=True)
    few = next(n for n in range(1, 22) if sum(values[:n]) >= sum(values) / 2)
    assert 1 < few < 20
    assert method.outcome["share_of_entries_with_half_the_trace"] == pytest.approx((few - 1) / 21)
    assert method.outcome["trace"] == pytest.approx(sum(values))
