"""Discounted gains against scikit-learn's, user by user."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from fisherexp.metrics.ranking import ndcg

DRAW = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("top", [1, 3, 5])
def test_gains_are_those_of_scikit_learn(top):
    users = torch.arange(120) % 12
    users = users[torch.randperm(120, generator=DRAW)] + 3
    scores, liked = torch.rand(120, generator=DRAW), torch.rand(120, generator=DRAW) < 0.3
    liked[users == 5] = False  # left out
    expected = [
        ndcg_score(liked[own][None].numpy(), scores[own][None].numpy(), k=top)
        for own in (users == user for user in range(3, 15))
        if liked[own].any()
    ]
    assert ndcg(users, scores, liked, top) == pytest.approx(np.mean(expected))
    assert 5 < len(expected) < 12


def test_the_best_order_has_one_and_few_items_are_enough():
    users, liked = torch.tensor([0, 0, 1]), torch.tensor([True, False, True])
    assert ndcg(users, torch.tensor([2.0, 1.0, 0.0]), liked) == 1
    assert ndcg(users, torch.tensor([1.0, 2.0, 0.0]), liked) == pytest.approx((1 / math.log2(3) + 1) / 2)
    assert math.isnan(ndcg(users, torch.zeros(3), torch.zeros(3, dtype=torch.bool)))
