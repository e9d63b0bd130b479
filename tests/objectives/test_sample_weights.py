"""A sample of weight 2 counts twice, one of weight 0 not at all: in every loss, in training and in the Fisher."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import fisher_diagonal
from fisherexp.data.batch import Batch
from fisherexp.methods.importance import FisherPass, Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.objectives.classification import Classification
from fisherexp.objectives.regression import Regression
from fisherexp.objectives.token_prediction import TokenPrediction

torch.manual_seed(0)
WEIGHTS = torch.tensor([2, 0, 1, 3])
CLASSES, TOKENS = torch.tensor([0, 2, 1, 1]), torch.randint(0, 3, (4, 5))
PADDED = TOKENS.masked_fill(torch.arange(5) > torch.arange(4)[:, None], -100)
CASES = {
    "classification": (Classification(), torch.randn(4, 3), CLASSES),
    "regression": (Regression(3), torch.randn(4, 3), torch.randn(4, 3)),
    "token_prediction": (TokenPrediction(), torch.randn(4, 5, 3), TOKENS),
    "token_prediction, padded": (TokenPrediction(), torch.randn(4, 5, 3), PADDED),
}
INPUTS = torch.randn(4, 6)


def repeated(tensor):
    return tensor.repeat_interleave(WEIGHTS, 0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_repeated_samples(name, reduction):
    objective, outputs, targets = CASES[name]
    found = objective.loss(outputs, targets, reduction, weights=WEIGHTS)
    torch.testing.assert_close(found, objective.loss(repeated(outputs), repeated(targets), reduction))
    plain = objective.loss(outputs, targets, reduction)
    assert not torch.isclose(found, plain)  # control
    torch.testing.assert_close(objective.loss(outputs, targets, reduction, weights=torch.ones(4)), plain)


def test_by_hand():
    outputs = torch.tensor([[0.0], [0.0]])
    found = Regression().loss(outputs, torch.tensor([[2.0], [4.0]]), weights=torch.tensor([3.0, 1.0]))
    assert found.item() == pytest.approx((3 * 2 + 1 * 8) / 4)


def test_training_and_fisher_take_the_weights_of_the_batch():
    model = nn.Linear(6, 3)
    weighted, alike = Batch(INPUTS, CLASSES, WEIGHTS), Batch(repeated(INPUTS), repeated(CLASSES))
    method = ERM(model, Recipe(epochs=1))
    torch.testing.assert_close(method.loss(weighted), method.loss(alike))
    passed = FisherPass(model, Importance())
    passed.on_train_start()
    passed.training_step(weighted, 0)
    found, expected = passed.accumulator.result(), fisher_diagonal(model, [alike[:2]])
    assert found.count == len(alike.targets)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
