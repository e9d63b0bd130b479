"""Selective synaptic dampening: the rule on tensors, the bound on its ratios, and what an edit may not do."""

import copy
import logging

import pytest
import torch
from pairs import pairs

from fisherexp.config.explain import composed
from fisherexp.curvature import fisher_diagonal
from fisherexp.methods.importance import Importance
from fisherexp.methods.unlearning.dampening import dampen
from fisherexp.methods.unlearning.ssd import SSD
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)
WEIGHT = torch.randn(50, dtype=torch.float64)
ALL = torch.rand(50, dtype=torch.float64)
FORGET = 10 * torch.rand(50, dtype=torch.float64)


def plain_rule(weight, forget, everything, alpha, lambda_):
    """Equations 3 and 4 of the paper, one weight at a time."""
    out = weight.clone()
    for j in range(len(weight)):
        if forget[j] > alpha * everything[j]:
            out[j] = min(lambda_ * everything[j] / forget[j], 1.0) * weight[j]
    return out


@pytest.mark.parametrize(("alpha", "lambda_"), [(5.0, 1.0), (2.0, 0.1), (1.0, 3.0), (0.0, 1.0), (50.0, 1.0)])
def test_rule_is_that_of_the_paper(alpha, lambda_):
    edited, selected = dampen(WEIGHT, FORGET, ALL, alpha, lambda_)
    torch.testing.assert_close(edited, plain_rule(WEIGHT, FORGET, ALL, alpha, lambda_), rtol=0, atol=0)
    assert torch.equal(selected, alpha * ALL < FORGET)
    assert (edited.abs() <= WEIGHT.abs()).all()
    assert (edited * WEIGHT >= 0).all()
    assert torch.equal(edited[~selected], WEIGHT[~selected])


def test_lambda_zero_removes_what_is_selected():
    edited, selected = dampen(WEIGHT, FORGET, ALL, 5.0, 0.0)
    assert selected.any()
    assert (edited[selected] == 0).all()


def test_alpha_zero_shrinks_by_the_ratio_everywhere():
    edited, _ = dampen(WEIGHT, FORGET, ALL, 0.0, 1.0)
    torch.testing.assert_close(edited, (ALL / FORGET).clamp(max=1) * WEIGHT)


def test_dead_weights_are_never_selected():
    zero = torch.zeros(3)
    edited, selected = dampen(torch.ones(3), zero, zero, 0.0, 1.0)
    assert not selected.any()
    assert torch.equal(edited, torch.ones(3))


def test_selection_ignores_the_scale_of_the_loss():
    one = dampen(WEIGHT, FORGET, ALL, 3.0, 1.0)
    scaled = dampen(WEIGHT, 49 * FORGET, 49 * ALL, 3.0, 1.0)
    assert torch.equal(one[1], scaled[1])
    torch.testing.assert_close(one[0], scaled[0])


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Workbench:
    output_dir = tmp_path_factory.mktemp("ssd")
    small = ["model.width=8", "training.epochs=3", "progress=off", "method.importance.gradients=per_sample"]
    return Workbench(composed([*small, f"output_dir={output_dir}"]))


@pytest.fixture
def source(bench):
    def build(**options) -> SSD:
        given = {"alpha": None, "alpha_relative": 0.7, "lambda_": 1.0, "importance": Importance()} | options
        model = bench.method("source.method").model
        model.load_state_dict(bench.reference("source").tensors)
        return SSD(model, **given)

    return build


def run(bench, ssd: SSD, folder) -> SSD:
    ssd.given["fisher"], _ = bench.fisher(ssd.importance, bench.reference("source"))
    bench.fit(ssd, folder, "SSD")
    return ssd


def test_ratios_respect_the_bound_and_alpha_at_it_is_the_identity(bench, source, tmp_path, caplog):
    ssd = source(alpha_relative=1.0)
    before = copy.deepcopy(ssd.model.state_dict())
    with caplog.at_level(logging.WARNING):
        run(bench, ssd, tmp_path)
    setting = bench.setting
    bound = len(setting.parts["train"]) / len(setting.parts["forget"])
    assert ssd.outcome["bound"] == pytest.approx(bound)
    assert ssd.outcome["ratio_max"] <= bound * (1 + 1e-4)
    assert ssd.outcome["selected"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in ssd.model.state_dict().items())
    assert "SSD changed nothing" in caplog.text
    assert f"{bound:.4g}" in caplog.text


def test_edit_touches_selected_weights_only_and_no_buffer(bench, source, tmp_path):
    ssd = source(alpha_relative=0.2)
    before = copy.deepcopy(ssd.model.state_dict())
    run(bench, ssd, tmp_path)
    changed = {n: int((before[n] != t).sum()) for n, t in ssd.model.state_dict().items()}
    assert ssd.outcome["selected"] > 0
    assert {n: c for n, c in changed.items() if n in ssd.outcome["selected_by_layer"]} == {
        # a weight that is exactly zero is selected without changing
        n: int(((before[n] != 0) & (before[n] != ssd.model.state_dict()[n])).sum())
        for n in ssd.outcome["selected_by_layer"]
    }
    assert sum(changed.values()) <= ssd.outcome["selected"]
    buffers = {name for name, _ in ssd.model.named_buffers()}
    assert all(changed[name] == 0 for name in buffers)


def test_record_says_by_layer_what_is_left_of_the_selected_weights(bench, source, tmp_path):
    ssd = source(alpha_relative=0.2)
    before = copy.deepcopy(ssd.model.state_dict())
    run(bench, ssd, tmp_path)
    everything, _ = bench.fisher(ssd.importance, bench.reference("source"))
    for name, left in ssd.outcome["left_by_layer"].items():
        after, selected = ssd.model.state_dict()[name], ssd.fisher[name] > ssd.outcome["alpha"] * everything[name]
        assert selected.sum() == ssd.outcome["selected_by_layer"][name]
        assert left == pytest.approx((after[selected].abs().sum() / before[name][selected].abs().sum()).item())
        assert left < 1 / ssd.outcome["alpha"]
    assert set(ssd.outcome["left_by_layer"]) == {n for n, s in ssd.outcome["selected_by_layer"].items() if s}


def test_a_second_edit_goes_further(bench, source, tmp_path):
    """SSD is not idempotent: the dampened model has other gradients."""
    once = run(bench, source(alpha_relative=0.2), tmp_path / "once")
    twice = source(alpha_relative=0.2)
    twice.model.load_state_dict(once.model.state_dict())
    run(bench, twice, tmp_path / "twice")
    assert twice.outcome["selected"] > 0
    assert twice.outcome["selected_by_layer"] != once.outcome["selected_by_layer"]
    assert any(not torch.equal(once.model.state_dict()[n], t) for n, t in twice.model.state_dict().items())


def test_importance_of_the_whole_is_the_mean_of_that_of_its_parts(bench, source):
    model = source().model
    setting = bench.setting
    whole, _ = bench.fisher(Importance(), bench.reference("source"))
    for part in ("forget", "retain"):
        assert len(setting.parts[part])
    forget, retain = (fisher_diagonal(model, pairs(setting.loader(part))) for part in ("forget", "retain"))
    share = len(setting.parts["forget"]) / len(setting.parts["train"])
    for name in whole.names:
        torch.testing.assert_close(whole[name], share * forget[name] + (1 - share) * retain[name], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("order", ["by_class", "forget_apart"])
def test_order_of_the_official_scripts(bench, order):
    """[retained, sorted by class; then the forgotten class], so that batches are pure as far as they can be."""
    importance = Importance(gradients="batch_mean", batch_size=16, order=order)
    batches = [batch.targets for batch in importance.batches(bench.setting, "train")]
    labels, forgotten = torch.cat(batches), len(bench.setting.parts["forget"])
    assert (labels[-forgotten:] == 3).all()
    assert not (labels[:-forgotten] == 3).any()
    assert torch.equal(labels[:-forgotten], labels[:-forgotten].sort().values)
    mixed = [batch for batch in batches if (batch == 3).any() and not (batch == 3).all()]
    assert len(mixed) == (order == "by_class")


@pytest.mark.parametrize("gradients", ["per_sample", "batch_mean"])
def test_importance_is_that_of_the_images_themselves(gradients, tmp_path):
    """Each once, in an order that does not change, and not augmented as for training."""
    augmented = ["data.augment=crop_flip", "data.batch_size=100", f"output_dir={tmp_path}", "progress=off"]
    setting, importance = Workbench(composed(augmented)).setting, Importance(gradients=gradients)
    for part in ("train", "forget"):
        for together in (1, importance.batches_per_update):
            found = torch.cat([batch.inputs for batch in importance.batches(setting, part, together)])
            assert torch.equal(found, setting.parts[part].inputs)


@pytest.mark.parametrize("order", ["as_is", "forget_apart"])
def test_batches_of_the_estimator_are_the_same_however_many_go_together(order, bench, source, tmp_path):
    importance = Importance(gradients="batch_mean", batch_size=16, order=order)
    together, _ = bench.fisher(importance, bench.reference("source"))
    model = source().model
    apart = fisher_diagonal(model, pairs(importance.batches(bench.setting, "train")), gradients="batch_mean")
    assert importance.batches_per_update == 32
    assert together.count == apart.count
    for name in apart.names:
        scale = apart[name].max().item()
        torch.testing.assert_close(together[name], apart[name], rtol=1e-4, atol=1e-6 * scale)


def test_bound_of_batch_means_is_exact_where_no_batch_is_mixed(bench, source, tmp_path):
    importance = Importance(gradients="batch_mean", batch_size=16, order="forget_apart")
    ssd = run(bench, source(alpha_relative=1.0, importance=importance), tmp_path)
    forget, retain = len(bench.setting.parts["forget"]), len(bench.setting.parts["retain"])
    batches_of_forget, batches_of_retain = -(-forget // 16), -(-retain // 16)
    assert ssd.outcome["bound"] == (batches_of_forget + batches_of_retain) / batches_of_forget
    assert ssd.outcome["ratio_max"] <= ssd.outcome["bound"] * (1 + 1e-5)
    assert ssd.outcome["selected"] == 0


def test_what_names_an_estimator():
    assert Importance(batch_size=8).key() == Importance(batch_size=64, order="by_class").key()
    batch_mean = {"gradients": "batch_mean"}
    assert Importance(batch_size=8, **batch_mean).key() != Importance(batch_size=64, **batch_mean).key()
    assert Importance(order="as_is", **batch_mean).key() != Importance(order="by_class", **batch_mean).key()
