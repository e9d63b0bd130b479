"""The rule that lowers a rate: the authors' loop written out, what is kept, and a fit of self-tuning under it."""

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.methods.training.plateau import FACTOR, Plateau, stands_still
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench


def in_the_authors_words(losses: list[float], nonmono: int) -> list[int]:
    """Epochs behind which their training loop divides the rate; `best_val_loss` is theirs."""
    best_val_loss, divided = [], []
    for epoch, val_loss in enumerate(losses):
        best_val_loss.append(val_loss)
        if len(best_val_loss) > nonmono and val_loss > min(best_val_loss[:-nonmono]):
            divided.append(epoch)
    return divided


@pytest.mark.parametrize("window", [1, 3, 7])
def test_the_rate_is_lowered_where_the_authors_lower_it_and_the_least_loss_is_kept(window):
    drawn = torch.Generator().manual_seed(window)
    losses = (torch.linspace(2, 1, 30) + 0.5 * torch.rand(30, generator=drawn)).tolist()
    expected, plateau = in_the_authors_words(losses, window), Plateau(window, patience=30)
    found = [epoch for epoch, loss in enumerate(losses) if plateau.take(loss, {"w": torch.tensor(loss)})]
    assert found == plateau.lowered == expected
    assert 0 < len(found) < 30
    assert plateau.best["w"] == min(losses)
    assert losses[plateau.best_epoch] == min(losses)


def test_a_falling_loss_lowers_nothing_and_patience_counts_from_the_best_epoch():
    assert not any(stands_still(list(range(n, 0, -1)), 2) for n in range(1, 9))
    plateau = Plateau(window=60, patience=2)
    over = []
    for loss in (3.0, 1.0, 2.0, 1.0):
        plateau.take(loss, {})
        over.append(plateau.over)
    assert over == [False, False, False, True]


def test_of_a_training_that_gets_worse_the_best_network_is_kept_and_its_rate_falls(tmp_path):
    """At a rate far too high."""
    given = ["method=self_tuning", "model.hidden=[8]", "data.train_size=80", "data.batch_size=20"]
    given += ["training.epochs=8", "training.optimizer=adam", "training.lr=0.5", "training.schedule=constant"]
    given += ["method.plateau=1", "method.patience=4", "progress=off", "logger=none", "threads=1"]
    bench = Workbench(composed([*given, f"output_dir={tmp_path}"]))
    method, _ = finished(bench, tmp_path / "run")
    losses = method.outcome["validation_losses"]
    assert method.outcome["lowered"] == in_the_authors_words(losses, 1) != []
    assert method.outcome["last_rate"] == pytest.approx(0.5 * FACTOR ** len(method.outcome["lowered"]))
    assert method.outcome["metrics"]["validation_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert min(losses) < losses[-1]  # the control: it is not the last one
