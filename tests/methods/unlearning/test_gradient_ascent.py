"""Gradient ascent: a step is that of fine-tuning on the same batch, backwards."""

import copy

import torch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.finetune import Finetune
from fisherexp.methods.unlearning.gradient_ascent import GradientAscent

torch.manual_seed(0)
IMAGES, LABELS = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 3, (6,))


def test_a_step_is_a_fine_tuning_step_backwards():
    start = nn.Linear(4, 3).double()
    moves = []
    for method in (Finetune, GradientAscent):
        fit = method(copy.deepcopy(start), epochs=1, lr=0.1, momentum=0.0, weight_decay=0.0)
        optimizer = fit.configure_optimizers()["optimizer"]
        fit.loss(Batch(IMAGES, LABELS)).backward()
        optimizer.step()
        moves.append(fit.model.weight - start.weight)
    assert moves[0].abs().max() > 0
    torch.testing.assert_close(moves[1], -moves[0], rtol=0, atol=1e-15)


def test_it_sees_the_forgotten_part_only():
    assert GradientAscent.fits_on == "forget"
