"""Every objective: its likelihood is that loss in the curvature engine, and its metrics are complete."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import batch_gradients, per_sample_gradient_norms
from fisherexp.metrics.evaluation import Evaluation
from fisherexp.objectives.classification import Classification
from fisherexp.objectives.regression import Regression
from fisherexp.objectives.token_prediction import TokenPrediction

torch.manual_seed(0)
X, CLASSES, NUMBERS = torch.randn(6, 4).double(), torch.randint(0, 3, (6,)), torch.randn(6, 3).double()
SEQUENCES, TOKENS = torch.randn(6, 5, 4).double(), torch.randint(0, 3, (6, 5))
PADDED = TOKENS.masked_fill(torch.arange(5) > torch.arange(6)[:, None] % 4, -100)
CASES = {
    "classification": (Classification(), X, CLASSES),
    "regression": (Regression(3), X, NUMBERS),
    "token_prediction": (TokenPrediction(), SEQUENCES, TOKENS),
    "token_prediction, padded": (TokenPrediction(), SEQUENCES, PADDED),
}


@pytest.mark.parametrize("name", CASES)
def test_the_engine_differentiates_the_loss_of_each_sample(name):
    objective, inputs, targets = CASES[name]
    model = nn.Linear(4, 3).double()
    parameters = list(model.parameters())

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, parameters, retain_graph=True))

    each = objective.sample_losses(model(inputs), targets)
    assert each.shape == (6,)
    norms = per_sample_gradient_norms(model, inputs, targets, loss=objective.likelihood)
    for i in range(6):
        for parameter, gradient in zip(("weight", "bias"), gradients(each[i]), strict=True):
            torch.testing.assert_close(norms[parameter][i], gradient.norm())
    (mean,) = batch_gradients(model, objective.likelihood, [(inputs, targets)])
    torch.testing.assert_close(mean, torch.cat([g.flatten() for g in gradients(each.mean())]))


@pytest.mark.parametrize("name", CASES)
def test_every_metric_has_a_heading_and_a_direction(name):
    objective, inputs, targets = CASES[name]
    metrics = objective.metrics(("test",))
    assert isinstance(metrics, Evaluation)
    metrics.update(0, nn.Linear(4, 3).double()(inputs).detach(), targets)
    found = metrics.compute()
    assert set(metrics.headings) <= set(found)
    assert set(metrics.better) <= set(found)
    assert set(metrics.better.values()) <= {"higher", "lower"}
