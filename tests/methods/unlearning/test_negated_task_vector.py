"""Task-vector negation: where the weights end, what stays, and that the training on the forgotten part is undone."""

import copy

import pytest
import torch
from torch import nn

from fisherexp.methods.unlearning.negated_task_vector import NegatedTaskVector


@pytest.mark.parametrize("scale", [0.4, 1.0])
def test_the_weights_end_on_the_other_side_of_the_source(scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    source = copy.deepcopy(model)
    method = NegatedTaskVector(model, scale, epochs=1, lr=1e-3, weight_decay=0.0)
    method.source_loaded()
    moves = [torch.randn_like(p) for p in model.parameters()]
    with torch.no_grad():
        for parameter, move in zip(model.parameters(), moves, strict=True):
            parameter += move
    model.train()(torch.randn(5, 3, dtype=torch.float64))  # moves the statistics, too
    assert not torch.equal(model[1].running_mean, source[1].running_mean)
    method.on_train_end()
    for found, before, move in zip(model.parameters(), source.parameters(), moves, strict=True):
        torch.testing.assert_close(found, before - scale * move)
    assert torch.equal(model[1].running_mean, source[1].running_mean)
    assert method.outcome["norm"] == pytest.approx(torch.cat([move.flatten() for move in moves]).norm().item())
