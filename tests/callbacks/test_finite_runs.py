"""A run whose loss, weights or figures are no numbers has failed: nothing is stored of it, nothing tabulated."""

import math

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from fisherexp.app import main
from fisherexp.callbacks.finite import Diverged, Finite, check_figures, weights_are_finite

SMALL = ["model=mlp", "model.hidden=[4]", "training.epochs=2", "data.train_size=128", "progress=off", "threads=1"]
ERM = ["method=erm", "logger=[]", *SMALL]


class Sloppy(LightningModule):
    """A linear model whose loss is `losses` times its output, step by step."""

    def __init__(self, losses):
        super().__init__()
        self.layer, self.losses, self.steps = nn.Linear(1, 1), losses, 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.layer(batch).sum() * 0 + self.losses[self.steps - 1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(losses, epochs=2):
    finite, module = Finite(), Sloppy(losses)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[finite],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.ones(len(losses) // epochs, 1)))
    finite.check(trainer, module)
    return module


def test_finite_losses_pass():
    assert fit([1.0, 2.0, 1e30, 0.0]).steps == 4


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_one_loss_that_is_no_number_ends_the_run_at_the_end_of_its_epoch(wrong, place):
    losses = [1.0] * 4
    losses[place] = wrong
    with pytest.raises(Diverged, match=f"the loss.* not finite after epoch {1 + place // 2}"):
        fit(losses)


def spoil(module):
    module.weight.fill_(math.nan)


def test_weights_and_buffers_are_looked_at():
    module = nn.BatchNorm1d(2)
    assert weights_are_finite(module)
    module.register_buffer("mask", torch.full((2, 2), -math.inf))
    assert weights_are_finite(module)
    module.running_var[1] = math.inf
    assert not weights_are_finite(module)
    assert not weights_are_finite(nn.Linear(1, 1).to(torch.float32).requires_grad_(False).apply(spoil))


def test_figures():
    check_figures({"a": 1.0, "b": 3, "c": None, "d": "nan"}, "after")
    with pytest.raises(Diverged, match="after: a is nan"):
        check_figures({"a": math.nan}, "after")


@pytest.mark.parametrize("scenario", ["none", "class_forgetting"])
def test_a_run_that_diverged_has_failed(scenario, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py"])
    line = [*ERM, f"scenario={scenario}", "audit=none", f"output_dir={tmp_path}"]
    assert main([*line, "training.lr=1e30"]) == 1
    failed = [text for text in capsys.readouterr().err.splitlines() if text.startswith("failed: ")]
    assert len(failed) == 1
    assert "diverged" in failed[0]
    assert not list(tmp_path.glob("*/*/*/run.json"))
    assert not list(tmp_path.glob("artefacts/weights/*.safetensors"))
    if scenario == "none":  # the same run with a rate it bears is a result
        assert main(line) == 0
        assert len(list(tmp_path.glob("*/*/*/run.json"))) == 1
