"""What the classes of pruning make of their options: every weight after one step of it, from the pure functions."""

import pytest
import torch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.methods.compression.diagonal_fisher_pruning import DiagonalFisherPruning, diagonal_saliency
from fisherexp.methods.compression.fisher_calibration import FisherCalibration
from fisherexp.methods.compression.m_fac_pruning import MFACPruning
from fisherexp.methods.compression.obs import Blocks, group_update, individual_update, saliency
from fisherexp.methods.compression.pruning import lowest
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe

DRAWN = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(12, dtype=torch.float64, generator=DRAWN)
GRADIENTS = torch.randn(5, 12, dtype=torch.float64, generator=DRAWN)
RECIPE = Recipe(epochs=2, optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, schedule="cosine")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False).double()
        self.layer.weight.data = WEIGHTS.view(3, 4).clone()

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("damping", [0.0, 0.02, 3.0])
def test_diagonal_fisher_pruning_drops_by_fisher_and_damping(damping):
    """Inputs are small, so that the damping decides against the Fisher where it is large."""
    method = DiagonalFisherPruning(
        Net(), recomputations=1, damping=damping, importance=Importance(), sparsities=[0.5], finetune=RECIPE
    )
    x, y = 0.3 * torch.randn(9, 4, dtype=torch.float64, generator=DRAWN), torch.randint(3, (9,), generator=DRAWN)
    method.look(Batch(x, y))
    method.edit(0, 0)
    net, fisher = Net(), torch.zeros(12, dtype=torch.float64)
    for one, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(net(one[None]), label[None])
        fisher += torch.autograd.grad(loss, net.layer.weight)[0].flatten().square() / 9
    dropped = lowest(diagonal_saliency(WEIGHTS, fisher, damping), 6)
    expected = WEIGHTS.index_fill(0, dropped, 0.0)
    torch.testing.assert_close(method.model.layer.weight.detach().flatten(), expected)


class Tied(nn.Module):
    """A head that is the embedding, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(3, 4), nn.Linear(4, 3, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.embedding(x))


def test_the_fisher_of_a_head_that_is_the_embedding_is_found():
    method = DiagonalFisherPruning(
        Tied(), recomputations=1, damping=0.0, importance=Importance(), sparsities=[0.5], finetune=RECIPE
    )
    batch = Batch(torch.tensor([0, 1, 2, 1]), torch.tensor([1, 2, 0, 0]))
    fisher = torch.zeros(3, 4)
    for one, label in zip(batch.inputs, batch.targets, strict=True):
        loss = nn.functional.cross_entropy(method.model(one[None]), label[None])
        fisher += torch.autograd.grad(loss, method.model.head.weight)[0].square() / 4
    weights = method.model.head.weight.detach().clone().flatten()
    method.look(batch)
    method.edit(0, 0)
    dropped = lowest(diagonal_saliency(weights, fisher.flatten(), 0.0), 6)
    assert torch.equal(method.model.embedding.weight.flatten(), weights.index_fill(0, dropped, 0.0))


def test_damping_matters_there():
    orders = [tuple(lowest(diagonal_saliency(WEIGHTS, GRADIENTS[0].square(), d), 6).tolist()) for d in (0.0, 3.0)]
    assert orders[0] != orders[1]


def test_a_fisher_that_was_taken_begins_anew():
    calibration = FisherCalibration(Net(), Importance())
    found = []
    for x in torch.randn(2, 5, 4, dtype=torch.float64, generator=DRAWN):
        calibration.add(Batch(x, torch.zeros(5, dtype=torch.int64)))
        found.append(calibration.take()["layer.weight"])
        alone = FisherCalibration(Net(), Importance())
        alone.add(Batch(x, torch.zeros(5, dtype=torch.int64)))
        torch.testing.assert_close(found[-1], alone.take()["layer.weight"])
    assert not torch.allclose(*found)


@pytest.mark.parametrize(("block", "update"), [(None, "individual"), (None, "group"), (5, "individual")])
def test_m_fac_pruning(block, update):
    options = {"recomputations": 1, "gradients": 5, "gradient_batch": 1, "damping": 0.1}
    method = MFACPruning(Net(), block=block, update=update, **options, sparsities=[0.5], finetune=RECIPE)
    values, dropped = method.surgery(WEIGHTS, GRADIENTS, 6)
    size = 12 if block is None else block
    fisher = torch.zeros(12, 12, dtype=torch.float64)
    for first in range(0, 12, size):
        part = GRADIENTS[:, first : first + size]
        fisher[first : first + size, first : first + size] = part.T @ part / 5
    inverse = torch.linalg.inv(fisher + 0.1 * torch.eye(12, dtype=torch.float64))
    expected = lowest(saliency(WEIGHTS, inverse.diagonal()), 6)
    assert dropped.tolist() == expected.tolist()
    if update == "group":
        torch.testing.assert_close(values, group_update(WEIGHTS, expected, GRADIENTS, 0.1))
    else:
        moved = individual_update(WEIGHTS, expected, Blocks(GRADIENTS, 0.1, size), inverse.diagonal())
        torch.testing.assert_close(values, moved)


@pytest.mark.parametrize("labels", ["empirical", "sampled"])
def test_a_fisher_goes_on_after_a_stop_as_without_one(labels):
    """Sampled labels are drawn on, not drawn again."""
    batches = [Batch(x, torch.zeros(40, dtype=torch.int64)) for x in torch.randn(2, 40, 4, dtype=torch.float64)]
    whole, stopped, resumed = (FisherCalibration(Net(), Importance(labels=labels)) for _ in range(3))
    for batch in batches:
        whole.add(batch)
    stopped.add(batches[0])
    resumed.load(stopped.state())
    resumed.add(batches[1])
    assert torch.equal(whole.take()["layer.weight"], resumed.take()["layer.weight"])


class Masked(Net):
    """Inputs with names, as texts have."""

    def forward(self, tokens, attention_mask):
        return self.layer(tokens * attention_mask)


def test_inputs_with_names_are_looked_at_row_by_row():
    options = {"recomputations": 1, "gradients": 3, "gradient_batch": 2, "damping": 0.1}
    tokens, mask = torch.randn(8, 4, dtype=torch.float64), (torch.rand(8, 4) > 0.5).double()
    labels = torch.randint(3, (8,))
    rows = []
    for net, inputs in ((Masked(), {"tokens": tokens, "attention_mask": mask}), (Net(), tokens * mask)):
        method = MFACPruning(net, block=None, update="individual", **options, sparsities=[0.5], finetune=RECIPE)
        method.look(Batch(inputs, labels))
        rows.append(torch.stack(method.rows))
    assert rows[0].shape == (3, 12)
    torch.testing.assert_close(*rows)


@pytest.mark.parametrize(("epochs", "steps"), [(2, 1), (2, 3)])
def test_the_schedule_of_fine_tuning_goes_over_all_steps(epochs, steps):
    sparsities = [0.2, 0.4, 0.6][:steps]
    method = MFACPruning(
        Net(),
        block=None,
        update="individual",
        recomputations=1,
        gradients=5,
        gradient_batch=1,
        damping=0.1,
        sparsities=sparsities,
        finetune=RECIPE,
    )
    method.train_length = 4
    scheduler = method.configure_optimizers()["lr_scheduler"]["scheduler"]
    whole = Recipe(epochs=epochs * steps, lr=0.1, schedule="cosine")
    for step in (1, 3, 7):
        assert scheduler.lr_lambdas[0](step) == pytest.approx(whole.factor(step, 4))
