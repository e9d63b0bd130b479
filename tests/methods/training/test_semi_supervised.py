"""FixMatch, FreeMatch and ShrinkMatch: views, losses, averages of weights, and what a step may and may not look at."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.data.digits import Digits
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.fixmatch import FixMatch
from fisherexp.methods.training.freematch import FreeMatch, fairness
from fisherexp.methods.training.shrink_match import ShrinkMatch
from fisherexp.methods.training.views import cut_out, moved, strong, weak
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.scenarios.few_labels import FewLabels

METHODS = [FixMatch, FreeMatch, ShrinkMatch]


def made(cls, **options):
    torch.manual_seed(0)
    backbone = MLP([8], input_shape=(1, 8, 8))
    found = cls(model=Classifier(backbone, 8, 10), training=Recipe(epochs=2), **options)
    found.begin(10)
    found._trainer = SimpleNamespace(global_step=0)
    return found


def batch_of(seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    images, targets = torch.randint(256, (12, 1, 8, 8), dtype=torch.uint8), torch.randint(10, (12,))
    return Batch(images, targets, tags={"labelled": torch.arange(12) < 4})


def loss_of(method, batch: Batch):
    torch.manual_seed(1)
    return method.training_step(batch, 0)


# --- views ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [weak, strong])
def test_views_are_intensities_and_each_image_has_its_own(view):
    images = torch.randint(256, (1, 1, 12, 12), dtype=torch.uint8).expand(40, -1, -1, -1)
    torch.manual_seed(0)
    found = view(images, mirrors=False)
    assert found.shape == images.shape
    assert 0 <= found.min() <= found.max() <= 1
    assert len({image.numpy().tobytes() for image in found}) > (25 if view is strong else 4)
    torch.manual_seed(0)
    assert torch.equal(found, view(images, mirrors=False))


def test_mirrored_only_where_it_means_the_same():
    images = torch.zeros(64, 1, 16, 16)
    images[..., :4] = 1.0  # bright on the left
    left = [weak(images, mirrors)[..., :8].mean((1, 2, 3)) > 0.2 for mirrors in (False, True)]
    assert left[0].all()
    assert 0.2 < left[1].float().mean() < 0.8


def test_nothing_chosen_moves_nothing_and_the_largest_shift_is_a_share_of_the_side():
    images, still, most = torch.rand(3, 1, 10, 20), torch.zeros(3), torch.ones(3)
    torch.testing.assert_close(moved(images, *[still] * 5), images)
    across, down = moved(images, *[still] * 3, most, still), moved(images, *[still] * 4, most)
    torch.testing.assert_close(across[..., :14], images[..., 6:])
    torch.testing.assert_close(down[..., :7, :], images[..., 3:, :])
    assert across[..., 14:].abs().max() < 1e-5


def test_the_largest_turn_of_an_oblong_image_keeps_lengths():
    """A short bar right of the center of an image twice as wide as high comes to lie 30 degrees up or down."""
    images, still, most = torch.zeros(1, 1, 21, 41), torch.zeros(1), torch.ones(1)
    images[..., 10, 27:30] = 1.0  # 8 pixels from the center
    turned = moved(images, most, *[still] * 4)[0, 0]
    places = torch.stack(torch.meshgrid(torch.arange(21.0) - 10, torch.arange(41.0) - 20, indexing="ij"))
    down, right = (places * turned).sum((1, 2)) / turned.sum()
    assert right.item() == pytest.approx(8 * 3**0.5 / 2, abs=0.3)
    assert abs(down.item()) == pytest.approx(4, abs=0.3)


def test_a_square_of_half_the_side_or_what_the_border_leaves_of_it_gets_the_mean():
    torch.manual_seed(0)
    images = torch.rand(200, 2, 8, 8)
    changed = cut_out(images) != images
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert set(changed[:, 0].sum((1, 2)).tolist()) == {4, 6, 8, 9, 12, 16}
    torch.testing.assert_close(cut_out(torch.ones(5, 1, 8, 8)), torch.ones(5, 1, 8, 8))


# --- losses --------------------------------------------------------------------------------------------

P = torch.tensor([[0.96, 0.03, 0.01], [0.5, 0.3, 0.2], [0.01, 0.02, 0.97]])
Z = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.1, -1.0], [0.0, 2.0, 0.3]])
CE = F.cross_entropy(Z, P.argmax(1), reduction="none")


def test_fixmatch_counts_samples_it_is_sure_of():
    losses, used = made(FixMatch, threshold=0.95).unlabelled_losses(P, Z, Z)
    assert used.tolist() == [True, False, True]
    torch.testing.assert_close(losses, CE * torch.tensor([1.0, 0.0, 1.0]))


def test_freematch_follows_confidence_by_class():
    method = made(FreeMatch, momentum=0.9, fairness_weight=0.0)
    method.begin(3)
    losses, used = method.unlabelled_losses(P, Z, Z)
    threshold = 0.9 / 3 + 0.1 * P.amax(1).mean()
    mean = 0.9 / 3 + 0.1 * P.mean(0)
    torch.testing.assert_close(method.thresholds(), threshold * mean / mean.max())
    assert used.all()  # all are above a threshold that is near 1/3
    torch.testing.assert_close(losses, CE)
    method.threshold.fill_(0.9)
    _, used = method.unlabelled_losses(P, Z, Z)
    assert used.tolist() == [True, False, True]


def test_fairness_is_least_where_strong_views_stray_from_what_is_wanted():
    """By hand for two classes, with one sample that is not used."""
    strong_logits = torch.tensor([[1.0, 0.0], [0.0, 3.0], [5.0, 0.0]])
    used, wanted, histogram = torch.tensor([True, True, False]), torch.tensor([0.6, 0.4]), torch.tensor([0.3, 0.7])
    q = strong_logits[:2].softmax(1).mean(0)  # shares of its classes: ½ and ½
    a = wanted / histogram / (wanted / histogram).sum()
    expected = (a * (q / q.sum()).log()).sum()
    torch.testing.assert_close(fairness(strong_logits, used, wanted, histogram), expected)
    assert fairness(strong_logits, torch.zeros(3, dtype=torch.bool), wanted, histogram) == 0


def test_shrinkmatch_weights_unsure_samples_by_the_share_of_sure_ones():
    method = made(ShrinkMatch, alignment=False)
    losses, used = method.unlabelled_losses(P.repeat(1, 4)[:, :10] / 3.5, torch.zeros(3, 10), torch.zeros(3, 8))
    assert method.sure_share == 0  # none was sure, so the others do not count either
    assert losses.abs().max() == 0
    assert used.any()
    sure = F.one_hot(torch.tensor([1, 2, 3]), 10) * 1.0
    method.unlabelled_losses(sure, torch.zeros(3, 10), torch.zeros(3, 8))
    assert method.sure_share == pytest.approx(0.001, rel=1e-4)
    method.reset_each_epoch = True
    method.on_train_epoch_start()
    method.unlabelled_losses(sure, torch.zeros(3, 10), torch.zeros(3, 8))
    assert method.sure_share == 1


def test_alignment_divides_by_the_mean_of_recent_batches():
    method = made(ShrinkMatch)
    logits = torch.randn(6, 10)
    p = logits.softmax(1)
    aligned = p / p.mean(0)
    torch.testing.assert_close(method.probabilities(logits), aligned / aligned.sum(1, keepdim=True))


def test_what_shrinks_trains_features_and_the_auxiliary_head_alone():
    method = made(ShrinkMatch, alignment=False)
    method.sure_share.fill_(1.0)
    features = torch.randn(16, 8, requires_grad=True)
    logits = method.model.logits(features)
    unsure = torch.full((16, 10), 0.01).index_fill(1, torch.tensor([0]), 0.5).index_fill(1, torch.tensor([1]), 0.42)
    losses, used = method.unlabelled_losses(unsure, logits, features)
    assert used.all()
    losses.sum().backward()
    assert features.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.auxiliary.parameters())
    assert method.model.head.weight.grad.abs().max() == 0


# --- the loop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", METHODS)
def test_labels_of_unlabelled_samples_change_nothing(cls):
    batch = batch_of()
    others = torch.where(batch.tags["labelled"], batch.targets, (batch.targets + 3) % 10)
    known = torch.where(batch.tags["labelled"], (batch.targets + 3) % 10, batch.targets)
    loss, same, control = (
        loss_of(made(cls), batch._replace(targets=targets)) for targets in (batch.targets, others, known)
    )
    assert loss == same
    assert loss != control


def test_with_no_weight_for_unlabelled_samples_it_is_plain_training_on_weak_views():
    method, batch = made(FixMatch, unlabelled_weight=0.0), batch_of()
    loss = loss_of(method, batch)
    torch.manual_seed(1)
    known = batch.select(batch.tags["labelled"])
    torch.testing.assert_close(loss, F.cross_entropy(method.model(weak(known.inputs, True)), known.targets))


def test_the_average_of_weights_is_what_is_left_at_the_end():
    method = made(FixMatch, average=0.9)
    first = [p.detach().clone() for p in method.model.parameters()]
    method.on_train_batch_start()
    with torch.no_grad():
        for p in method.model.parameters():
            p.add_(1)
    method.on_train_end()
    for now, before in zip(method.model.parameters(), first, strict=True):
        torch.testing.assert_close(now.detach(), before + 0.1)


def test_a_step_has_labelled_and_unlabelled_samples_and_an_epoch_is_a_pass_over_the_latter():
    setting = FewLabels(20).setting(Digits(batch_size=8).load(), seed=0)
    method = made(FixMatch, ratio=10)
    batches = list(method.batches(setting))
    assert len(batches) == 15
    assert not method.mirrors
    labelled = torch.stack([batch.tags["labelled"].sum() for batch in batches])
    assert labelled.max() == 8
    assert sum(batch.size for batch in batches) - labelled.sum() == 1200


def test_scales_and_biases_do_not_decay():
    method = made(ShrinkMatch)
    first, second = method.configure_optimizers()["optimizer"].param_groups
    assert (first["weight_decay"], second["weight_decay"]) == (5e-4, 0.0)
    assert {p.dim() for p in second["params"]} == {1}
    total = sum(1 for part in (method.model, method.auxiliary) for _ in part.parameters())
    assert len(first["params"]) + len(second["params"]) == total
    assert isinstance(method.auxiliary[1], nn.BatchNorm1d)
