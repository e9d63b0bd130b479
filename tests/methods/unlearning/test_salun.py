"""SalUn: which weights are free, and that the others keep every bit."""

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.salun import salient, summed_gradients
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)
SALIENCY = {"a": torch.rand(4, 3, dtype=torch.float64), "b": torch.rand(5, dtype=torch.float64)}


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_largest_share_of_all_weights_together_is_free(share):
    masks = salient(SALIENCY, share)
    ranked = sorted((v, name, i) for name, values in SALIENCY.items() for i, v in enumerate(values.flatten().tolist()))
    count = int(share * 17)
    expected = {(name, i) for _, name, i in ranked[len(ranked) - count :]}
    found = {(name, i) for name, mask in masks.items() for i, free in enumerate(mask.flatten().tolist()) if free}
    assert found == expected
    assert all(masks[name].shape == values.shape for name, values in SALIENCY.items())


def test_ties_do_not_change_how_many_are_free():
    assert salient({"a": torch.zeros(10)}, 0.5)["a"].sum() == 5


def test_saliency_sums_batch_gradients_in_eval_mode():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    batches = [Batch(torch.randn(n, 3, dtype=torch.float64), torch.randint(0, 2, (n,))) for n in (4, 4, 2)]
    sums = summed_gradients(model, batches)
    assert model.training
    assert model[1].num_batches_tracked == 0
    model.eval()
    for batch in batches:
        nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(sums[name], weight.grad)


@pytest.mark.parametrize("order", ["forget_first", "mixed"])
def test_an_epoch_goes_through_all_samples_once_in_either_order(tmp_path, order):
    overrides = ["method=salun", f"method.order={order}", "method.batch_size=40"]
    bench = Workbench(composed([*overrides, f"output_dir={tmp_path}", "progress=off"]))
    parts, batches = bench.setting.parts, list(bench.method("method").batches(bench.setting))
    found = torch.cat([batch.tags["forgotten"] for batch in batches])
    forgotten = len(parts["forget"])
    assert found.sum() == forgotten
    assert len(found) == len(parts["train"])
    assert bool(found[:forgotten].all()) == (order == "forget_first")


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_weights_outside_the_mask_keep_every_bit(tmp_path, share):
    overrides = ["method=salun", "model.width=4", "training.epochs=1", "method.epochs=2", f"method.share={share}"]
    bench = Workbench(composed([*overrides, f"output_dir={tmp_path}", "progress=off"]))
    fit, source = bench.method("method"), bench.reference("source").tensors
    fit.model.load_state_dict(source)
    bench.fit(fit, tmp_path / "run", "fit")
    total = free = moved = 0
    for name, weight in fit.model.named_parameters():
        mask = fit.masks[name]
        assert torch.equal(weight[~mask], source[name][~mask])
        total, free, moved = total + mask.numel(), free + int(mask.sum()), moved + int((weight != source[name]).sum())
    assert free == int(share * total)
    assert moved >= 0.9 * free
