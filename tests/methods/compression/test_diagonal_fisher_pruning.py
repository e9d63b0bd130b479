"""Diagonal Fisher pruning against the Fisher of the whole training part."""

import torch
from pairs import pairs

from fisherexp.curvature import fisher_diagonal
from fisherexp.curvature.vectors import ravel
from fisherexp.methods.compression.diagonal_fisher_pruning import diagonal_saliency
from fisherexp.methods.compression.pruning import lowest, prunable

ONE_SHOT = ["method.sparsities=[0.8]", "method.finetune.epochs=0"]


def test_diagonal_fisher_drops_by_the_fisher_of_the_training_data(pruned):
    fit, before, bench = pruned("diagonal_fisher_pruning", *ONE_SHOT)
    model = bench.method("source.method").model
    model.load_state_dict(bench.reference("source").tensors)
    fisher = ravel({n: fisher_diagonal(model, pairs(whole(bench)))[n] for n in prunable(model)})
    dropped = lowest(diagonal_saliency(before, fisher, 1e-5), len(before) - fit.outcome["kept"])
    assert torch.equal((~fit.kept).nonzero().flatten(), dropped.sort().values)
    assert torch.equal(ravel(fit.weights)[fit.kept], before[fit.kept])


def whole(bench):
    return bench.setting.loader("train", batch_size=len(bench.setting.parts["train"]))
