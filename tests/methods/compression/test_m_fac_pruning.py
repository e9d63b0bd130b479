"""M-FAC pruning: the gradients it takes, and its special cases."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.m_fac_pruning import MFACPruning
from fisherexp.methods.compression.pruning import lowest
from fisherexp.methods.recipe import Recipe

M, N, DAMPING = 12, 30, 1e-3
torch.manual_seed(0)
G = torch.randn(M, N, dtype=torch.float64)
W = torch.randn(N, dtype=torch.float64)
F = DAMPING * torch.eye(N, dtype=torch.float64) + G.T @ G / M


ONE_SHOT = ["method.sparsities=[0.8]", "method.finetune.epochs=0"]


def made(**options) -> MFACPruning:
    given = {"sparsities": [0.5], "recomputations": 1, "gradients": M, "gradient_batch": 1, "damping": DAMPING}
    return MFACPruning(nn.Linear(6, 5).double(), **given, finetune=Recipe(epochs=0), **options)


def test_all_blocks_in_one_is_the_full_fisher_and_order_of_rows_is_irrelevant():
    full = made(block=None, update="individual")
    one = made(block=N, update="individual")
    torch.testing.assert_close(full.surgery(W, G, 9), one.surgery(W, G, 9))
    torch.testing.assert_close(full.surgery(W, G, 9), full.surgery(W, G.flip(0), 9), atol=1e-9, rtol=0)


@pytest.mark.parametrize("update", ["individual", "group"])
def test_without_gradients_it_is_magnitude_pruning(update):
    updated, dropped = made(block=None, update=update).surgery(W, torch.zeros_like(G), 9)
    assert torch.equal(dropped, lowest(W.abs(), 9))
    torch.testing.assert_close(updated, W.index_fill(0, dropped, 0.0))


def test_group_update_of_blocks_is_refused():
    with pytest.raises(ValueError, match=r"method\.update=group needs the full Fisher"):
        made(block=5, update="group")


@pytest.mark.parametrize(("rows", "group"), [(7, 32), (300, 1), (50, 100)])
def test_a_look_takes_the_gradients_asked_for(pruned, rows, group):
    """300 single samples fit into one pass over the training data, 50 batches of 100 take four."""
    overrides = [*ONE_SHOT, f"method.gradients={rows}", f"method.gradient_batch={group}"]
    fit, _, bench = pruned("m_fac_pruning", *overrides)
    batches = list(fit.batches(bench.setting))
    for batch in batches:
        fit.look(batch)
    assert len(fit.rows) == rows
    assert len(batches) == fit.look_length
    assert sum(batch.size for batch in batches[:-1]) < rows * group


def test_more_samples_per_gradient_than_there_are_is_refused(pruned):
    with pytest.raises(ValueError, match=r"gradient_batch=5000: there are \d+ training samples"):
        pruned("m_fac_pruning", "method.gradient_batch=5000")
