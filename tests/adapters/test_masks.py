"""Sparse adapters against training the whole weight, and the choices of LIFT and SaRA against their definitions."""

from functools import partial

import pytest
import torch
from torch import nn

from fisherexp.adapters import LIFT, MagnitudeMask, RandomMask, SaRA, adapted_layers, after_step, forget_outside, inject
from fisherexp.adapters.lift import principal_mask
from fisherexp.adapters.masks import largest, smallest

W = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def train(model, steps=12, forget=True, decay=0.1, watch=lambda step: None):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, generator = torch.optim.AdamW(trained, 3e-2, weight_decay=decay), torch.Generator().manual_seed(1)
    for step in range(steps):
        x = torch.randn(16, 8, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - x[:, :4].sign()).square().mean().backward()
        optimizer.step()
        after_step(model, step, steps)
        if forget:
            forget_outside(optimizer, model)
        watch(step)
    return optimizer


@pytest.mark.parametrize(
    "make",
    [
        partial(RandomMask, rank=4),
        partial(MagnitudeMask, rank=4),
        partial(LIFT, rank=4, every=3),
        partial(SaRA, threshold=float("inf")),
    ],
)
def test_a_full_mask_is_training_the_whole_weight(make):
    """Bit for bit, AdamW's decay of the weights and all."""
    plain, masked = net(), net()
    plain[0].bias.requires_grad_(False), plain[2].bias.requires_grad_(False)
    inject(masked, "linear", make)
    for model in (plain, masked):
        train(model)
    for number in (0, 2):
        assert torch.equal(masked[number].weight, plain[number].weight)
    assert not torch.equal(plain[0].weight, net()[0].weight)


@pytest.mark.parametrize("make", [partial(RandomMask, rank=1), partial(MagnitudeMask, rank=1, select="smallest")])
def test_entries_outside_the_mask_keep_their_bytes(make):
    model = net()
    inject(model, "linear", make)
    train(model)
    for name, layer in adapted_layers(model).items():
        same = layer.weight == net().get_submodule(name).weight
        assert torch.equal(same, ~layer.adapters[0].mask)
        assert int((~same).sum()) == sum(layer.weight.shape)


def test_a_mask_that_stays_is_a_list_with_the_gradients_of_its_entries():
    adapter = MagnitudeMask(W, rank=1)
    gradient = torch.randn(W.shape, generator=torch.Generator().manual_seed(2), dtype=W.dtype)
    (gradient * adapter.weight(W)).sum().backward()
    assert torch.equal(adapter.entries.grad[0], gradient[adapter.mask])
    assert torch.equal(adapter.entries[0], W[adapter.mask])
    assert torch.equal(adapter.mask, largest(W.abs(), 14))


def test_masks_by_magnitude_hold_the_extremes():
    size = W.abs()
    assert size[largest(size, 10)].min() > size[~largest(size, 10)].max()
    assert size[smallest(size, 10)].max() < size[~smallest(size, 10)].min()
    assert int(largest(size, 10).sum()) == int(smallest(torch.zeros(3, 7), 10).sum()) == 10  # ties, too


def test_lifts_mask_comes_nearer_to_the_one_by_magnitude_with_each_component():
    """Its share in common at q 4, 16, 64 and all; at the start far from 1, at the end 1."""
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    count = 4 * sum(weight.shape)
    by_size, overlaps = largest(weight.abs(), count), []
    for filter_rank in (4, 16, 64, 96):
        overlaps.append((principal_mask(weight, filter_rank, count) & by_size).sum().item() / count)
    assert overlaps == sorted(set(overlaps))  # it rises each time
    assert overlaps[0] < 0.5
    assert overlaps[-1] == 1


@pytest.mark.parametrize("select", ["largest", "smallest"])
def test_lift_with_all_components_is_the_mask_by_magnitude(select):
    mask = LIFT(W, rank=1, filter_rank=6, select=select).mask
    assert torch.equal(mask, MagnitudeMask(W, rank=1, select=select).mask)
    assert not torch.equal(LIFT(W, rank=1, filter_rank=1, select=select).mask, mask)  # control


def test_lift_chooses_by_the_rank_reduced_weight():
    u, s, vt = torch.linalg.svd(W)
    low = (s[0] * u[:, :1] @ vt[:1] + s[1] * u[:, 1:2] @ vt[1:2]).abs()
    wanted = low >= low.flatten().sort().values[-14]
    assert torch.equal(principal_mask(W, 2, 14), wanted)


def test_the_first_new_mask_comes_after_one_step_less():
    """The authors choose where steps done + 1 is a multiple of T_u: after 3, 7 and 11 steps of 4."""
    model, masks = net(), []
    inject(model, "linear", partial(LIFT, rank=1, every=4))
    masks.append(adapted_layers(model)["0"].adapters[0].mask.clone())
    train(model, watch=lambda step: masks.append(adapted_layers(model)["0"].adapters[0].mask.clone()))
    changed = [step for step in range(1, 13) if not torch.equal(masks[step], masks[step - 1])]
    assert changed
    assert set(changed) <= {3, 7, 11}


def test_a_new_mask_changes_no_weight_and_keeps_what_was_learned():
    adapter = LIFT(W, rank=1)
    with torch.no_grad():
        adapter.entries += adapter.mask
    before, old = adapter.weight(W).detach(), adapter.mask.clone()
    new = ~old
    adapter.rechoose(new, W)
    assert torch.equal(adapter.weight(W), before)
    assert torch.equal(adapter.entries != 0, new)
    adapter.rechoose(old, W)  # and back: the learned values go on
    assert torch.equal(adapter.weight(W), before)
    assert torch.equal(before != W, old)


def test_an_unchanged_weight_leaves_the_mask_as_it_is():
    adapter = LIFT(W, rank=1, every=2)
    mask = adapter.mask.clone()
    adapter.renew(W, step=0, total=10)
    assert torch.equal(adapter.mask, mask)
    assert not adapter.gone.any()


@pytest.mark.parametrize("forget", [True, False])
def test_entries_that_come_in_begin_without_moments(forget):
    model = net()
    inject(model, "linear", partial(LIFT, rank=1, every=4))
    optimizer = train(model, steps=10, forget=forget, decay=0.0)
    stale = 0
    for layer in adapted_layers(model).values():
        state, mask = optimizer.state[layer.adapters[0].entries], layer.adapters[0].mask
        assert state["step"] == 10
        assert state["exp_avg"][mask].all()
        stale += int((state["exp_avg_sq"][~mask] != 0).sum())
    assert (stale == 0) == forget  # control: there is something to forget


def test_saras_mask_is_what_lies_below_the_threshold_and_shrinks():
    model, masks = net(), []
    threshold = 0.1
    inject(model, "linear", partial(SaRA, threshold=threshold, restart=0.5))
    layer = adapted_layers(model)["0"]
    (adapter,) = layer.adapters
    start = adapter.mask.clone()
    assert torch.equal(start, layer.matrix.abs() < threshold)
    train(model, watch=lambda step: masks.append((adapter.mask.clone(), layer.weight.detach().clone())))
    assert all(torch.equal(mask, start) for mask, _ in masks[:5])
    assert all(torch.equal(mask, masks[5][0]) for mask, _ in masks[5:])
    after, weight = masks[5]
    assert torch.equal(after, start & (weight.abs() < threshold))
    assert 0 < after.sum() < start.sum()
    left = start & ~after
    assert torch.equal(masks[-1][1][left], weight[left])  # what left stays
    assert not torch.equal(masks[-1][1][after], weight[after])


def test_saras_penalty_is_the_nuclear_norm_of_the_trained_entries():
    adapter = SaRA(W, threshold=0.7, penalty_weight=3.0)
    masked = W * (W.abs() < 0.7)
    u, s, vt = torch.linalg.svd(masked, full_matrices=False)
    adapter.penalty().backward()
    torch.testing.assert_close(adapter.penalty(), 3 * s.sum())
    torch.testing.assert_close(adapter.entries.grad, 3 * (u @ vt) * adapter.mask)


@pytest.mark.parametrize(("restart", "penalty"), [(1.0, 0.0), (0.5, 0.0), (0.5, 3e-3)])
def test_sara_trains_as_the_librarys_optimizer(restart, penalty):
    """Of pytorch_optimizer, which follows the authors' plain variant; with moments, decay, penalty and the new mask."""
    library, steps, threshold = pytest.importorskip("pytorch_optimizer"), 12, 0.05
    torch.manual_seed(0)
    plain = nn.Linear(70, 66, bias=False).double()  # smaller ones have no penalty there
    masked, start = nn.Linear(70, 66, bias=False).double(), plain.weight.detach().clone()
    masked.load_state_dict(plain.state_dict())
    inject(masked, "linear", partial(SaRA, threshold=threshold, restart=restart, penalty_weight=penalty))
    ours = torch.optim.AdamW([masked.adapters[0].entries], 1e-2, weight_decay=0.1)
    own = {"progressive_iter": steps // 2 if restart < 1 else -1, "lambda_rank": penalty}
    theirs = library.SaRA(plain.parameters(), 1e-2, weight_decay=0.1, threshold=threshold, **own)
    for step in range(steps):
        x = torch.randn(16, 70, dtype=torch.float64)
        for model, optimizer in ((masked, ours), (plain, theirs)):
            optimizer.zero_grad()
            (model(x) - x[:, :66].sign()).square().mean().backward()
        if penalty:
            masked.adapters[0].penalty().backward()
        ours.step(), theirs.step()
        after_step(masked, step, steps)
        forget_outside(ours, masked)
        torch.testing.assert_close(masked.weight, plain.weight, rtol=0, atol=1e-12)
    assert (plain.weight - start).abs().max() > 0.02  # control: they move


def test_a_threshold_below_all_weights_is_refused():
    with pytest.raises(ValueError, match=r"threshold=1e-09 is not above any"):
        SaRA(W, threshold=1e-9)


@pytest.mark.parametrize(("share", "count"), [(0.25, 12), (0.3, 14), (1.0, 48)])
def test_a_quantile_is_the_threshold_of_a_share_of_the_entries(share, count):
    adapter = SaRA(W, quantile=share)
    assert adapter.num_trainable() == count
    assert torch.equal(adapter.mask, smallest(W.abs(), count))
    assert torch.equal(adapter.mask, SaRA(W, threshold=adapter.threshold).mask)


@pytest.mark.parametrize("given", [{}, {"threshold": 0.1, "quantile": 0.1}])
def test_a_threshold_is_given_once(given):
    with pytest.raises(ValueError, match="give one of the two and null for the other"):
        SaRA(W, **given)
