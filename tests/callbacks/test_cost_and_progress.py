"""What a phase is said to cost is what it costs; what it prints is one line."""

import copy

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from fisherexp.callbacks.cost import Cost
from fisherexp.callbacks.meter import Meter
from fisherexp.callbacks.progress import PhaseProgress
from fisherexp.runs.trainer import build_trainer


class Walks(LightningModule):
    """Forwards each batch once and walks back `backward` times, without an optimizer."""

    def __init__(self, backward: int) -> None:
        super().__init__()
        self.model, self.backward_passes, self.automatic_optimization = nn.Linear(3, 2), backward, False

    def training_step(self, batch, batch_idx):
        output = self.model(batch)
        for _ in range(self.backward_passes):
            output.sum().backward(retain_graph=True)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.model(batch)

    def configure_optimizers(self):
        return None


BATCHES = DataLoader([torch.zeros(size, 3) for size in (5, 5, 2)], batch_size=None)


@pytest.mark.parametrize("backward", [0, 1, 3])
def test_samples_are_counted_at_the_output(tmp_path, backward):
    cost, module = Cost(), Walks(backward)
    build_trainer("cpu", folder=tmp_path, epochs=2, callbacks=[cost]).fit(module, BATCHES)
    assert cost.forward_samples == 2 * 12
    assert cost.backward_samples == 2 * 12 * backward
    assert cost.seconds > 0
    assert not module.model._forward_hooks
    build_trainer("cpu", folder=tmp_path, callbacks=[cost]).test(module, BATCHES, verbose=False)
    assert cost.forward_samples == 3 * 12


def test_a_resumed_loop_goes_on_counting():
    cost = Cost()
    cost.load_state_dict({"seconds": 10.0, "forward_samples": 7, "backward_samples": 5})
    assert cost.counts() == {"seconds": 10.0, "forward_samples": 7, "backward_samples": 5}


def test_a_watched_model_can_be_copied_and_the_copy_is_not_counted():
    """The curvature engine judges rounding by a copy in float64; what Lightning ties to a callback, as the trainer with
    its batches, nothing may be able to copy."""
    cost, module = Cost(), Walks(1)
    cost.log = (batch for batch in BATCHES)
    cost.on_fit_start(None, module)
    copy.deepcopy(module.model)(torch.zeros(4, 3))
    assert cost.forward_samples == 0
    module.model(torch.zeros(4, 3))
    assert cost.forward_samples == 4


@pytest.mark.parametrize(("how", "lines"), [("lines", 1), ("off", 0), ("auto", 1)])
def test_progress_away_from_a_terminal_is_a_line_per_phase(tmp_path, capsys, how, lines):
    progress = PhaseProgress(Meter("training source", how))
    build_trainer("cpu", folder=tmp_path, epochs=2, callbacks=[progress]).fit(Walks(1), BATCHES)
    printed = [line for line in capsys.readouterr().err.splitlines() if "training source" in line]
    assert len(printed) == lines


def test_progress_bar_ends_full(tmp_path, capsys):
    progress = PhaseProgress(Meter("training source", "bar"))
    build_trainer("cpu", folder=tmp_path, epochs=2, callbacks=[progress]).fit(Walks(1), BATCHES)
    printed = capsys.readouterr().err
    assert "6/6" in printed
    assert "steps/s" in printed


class Falls(Walks):
    """A loss of 8, 4 and 2 in turn, whatever the batch."""

    def training_step(self, batch, batch_idx):
        return self.model(batch).sum() * 0 + 2 ** (3 - batch_idx)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_progress_says_epoch_and_loss(tmp_path, capsys, accumulated):
    module = Falls(0)
    module.automatic_optimization = True
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.1)
    progress = PhaseProgress(Meter("training source", "bar"))
    options = {"accumulate_grad_batches": accumulated}
    build_trainer("cpu", folder=tmp_path, epochs=2, callbacks=[progress], **options).fit(module, BATCHES)
    assert "epoch 2/2  loss 2.00" in capsys.readouterr().err


def test_a_test_loop_counts_all_its_parts(tmp_path, capsys):
    progress = PhaseProgress(Meter("adapting", "bar"))
    loaders = [BATCHES, BATCHES]
    build_trainer("cpu", folder=tmp_path, callbacks=[progress]).test(Walks(0), loaders, verbose=False)
    assert "6/6" in capsys.readouterr().err


def test_a_long_phase_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fisherexp.callbacks.meter.LINE_SECONDS", -1.0)
    progress = PhaseProgress(Meter("training source", "lines"))
    build_trainer("cpu", folder=tmp_path, epochs=2, callbacks=[progress]).fit(Walks(1), BATCHES)
    lines = [line for line in capsys.readouterr().err.splitlines() if "training source" in line]
    assert len(lines) == 7
    assert "3 of 6" in lines[2]
    assert "steps/s" in lines[2]


def test_a_short_phase_may_go_without_a_line(tmp_path, capsys):
    progress = PhaseProgress(Meter("evaluating", "lines", short=1000.0))
    build_trainer("cpu", folder=tmp_path, callbacks=[progress]).test(Walks(0), BATCHES, verbose=False)
    assert "evaluating" not in capsys.readouterr().err
