"""What adapters' methods add to them: penalties and schedules of a run, directions of its inputs, output penalties."""

import math
import statistics

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

from fisherexp import adapters
from fisherexp.adapters.orthogonality import orthogonality
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning import output_penalties as penalties
from fisherexp.methods.finetuning.explained import explained
from fisherexp.runs.finished import finished

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def begun(bench, source):
    """The method of a bench right before its fit."""
    method = bench.method("method")
    method.model.load_state_dict(source)
    method.source_loaded()
    return method


def trainable(method) -> set[str]:
    return {name for name, parameter in method.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("name", "weight"), [("adalora", 0.1), ("sorsa", 13.3)])
def test_the_penalty_is_a_mean_over_all_factors(name, weight, make_bench, source):
    method = begun(make_bench(name), source)
    found = adapters.adapters(method.model)
    with torch.no_grad():
        for adapter in found:
            adapter.left += 0.1 * torch.randn(adapter.left.shape, generator=GENERATOR)
    norms = [orthogonality(f) for adapter in found for f in (adapter.left, adapter.right.T)]
    assert len(norms) == 4
    torch.testing.assert_close(adapters.penalty(method.model), weight * torch.stack(norms).mean())


def test_saras_penalty_is_a_mean_over_layers(make_bench, source):
    method = begun(make_bench("sara", "method.penalty=2.0", "method.threshold=0.05"), source)
    norms = [torch.linalg.matrix_norm(a.entries, "nuc") for a in adapters.adapters(method.model)]
    torch.testing.assert_close(adapters.penalty(method.model), 2 * torch.stack(norms).mean())


@pytest.mark.parametrize("restart", [0.5, 1.0])
def test_sara_counts_what_is_below_the_threshold_at_the_start(restart, fitted, source):
    """And not what the restart leaves, which the record has beside it: with none there is one size."""
    method = fitted("sara", "method.threshold=0.05", f"method.restart={restart}")
    layers = ("backbone.layers.1", "backbone.layers.3")
    below = sum(int((source[f"{name}.weight"].abs() < 0.05).sum()) for name in layers)
    head = sum(source[f"head.{name}"].numel() for name in ("weight", "bias"))
    assert method.outcome["metrics"]["trained_numbers"] == head + below
    left = sum(int(method.adapter_state[f"{name}.adapters.0.mask"].sum()) for name in layers)
    assert method.outcome["mask_sizes"] == {"first": below, "last": left}
    assert left < below if restart < 1 else left == below


def test_sorsas_drift_is_a_mean_over_all_triplets(fitted):
    """Of the scaled values and of the vectors that the run left; with held vectors these turn, and by less than 1."""
    method = fitted("sorsa", "method.alpha=8.0", "method.by_layer={layers.3: {rank: 2}}")
    state, metrics = method.adapter_state, method.outcome["metrics"]
    moved, along = [], []
    for name in (name.removesuffix(".values") for name in state if name.endswith(".values")):
        left, values, right = (state[f"{name}.{factor}"].double() for factor in ("left", "values", "right"))
        starts = (state[f"{name}.{factor}_start"].double() for factor in ("left", "values", "right"))
        for p, u, now, start, q, v in zip(
            left.T, next(starts).T, values, next(starts), right, next(starts), strict=True
        ):
            moved.append(8.0 / len(values) * (now - start).abs().item())
            along.append(abs((p @ u * (q @ v) / (p.norm() * q.norm())).item()))
    assert len(moved) == 4 + 2
    assert metrics["value_drift"] == pytest.approx(sum(moved) / 6, rel=1e-4) != 0
    assert metrics["vector_drift"] == pytest.approx(1 - sum(along) / 6, rel=1e-3)
    assert 1e-4 < metrics["vector_drift"] < 1


def test_svfits_share_of_the_plain_sum(fitted, source):
    """Of a given number of values, and of as many as hold half of the squares: these hold less of the sum."""
    hidden = [tensor for name, tensor in source.items() if tensor.ndim == 2 and name.startswith("backbone.")]
    values = [torch.linalg.svdvals(w.double()) for w in hidden]
    shares = [100 * statistics.fmean((s[:rank].sum() / s.sum()).item() for s in values) for rank in (3, 12)]
    for rank, share in zip((3, 12), shares, strict=True):
        figures = fitted("svfit", f"method.rank={rank}").outcome["metrics"]
        assert figures["sum_share"] == pytest.approx(share, rel=1e-6)
    counts = [1 + int((s.square().cumsum(0) < 0.5 * s.square().sum()).sum()) for s in values]
    half = 100 * statistics.fmean((s[:k].sum() / s.sum()).item() for s, k in zip(values, counts, strict=True))
    assert fitted("svfit", "method.energy=0.5").outcome["metrics"]["sum_share"] == pytest.approx(half, rel=1e-6)
    assert half < 45


def test_a_share_of_each_weight_is_trained_by_sara(fitted):
    """Half of it in one layer, a tenth in the other; and no longer after a restart than lies below the threshold."""
    shares = "method.by_layer={layers.3: {quantile: 0.1}}"
    line = ["method.threshold=null", "method.quantile=0.5", shares]
    found = fitted("sara", *line, "method.restart=1.0").adapter_state
    counts = {name: int(tensor.sum()) for name, tensor in found.items() if name.endswith(".mask")}
    assert [*counts.values()] == [512, 19]
    less = {name: int(tensor.sum()) for name, tensor in fitted("sara", *line).adapter_state.items() if name in counts}
    assert all(less[name] < count for name, count in counts.items())


def test_adaloras_layers_end_at_their_budget(fitted):
    ranks = fitted("adalora").outcome["ranks"]
    assert sum(ranks.values()) == 2 * 4
    assert max(ranks.values()) <= 6
    assert len(ranks) == 2


@pytest.mark.parametrize(("line", "betas"), [([], (0.9, 0.999)), (["method.betas=[0.9,0.95]"], (0.9, 0.95))])
def test_lifts_betas(make_bench, source, line, betas):
    groups = begun(make_bench("lift", *line), source).configure_optimizers()["optimizer"].param_groups
    assert {group["betas"] for group in groups} == {betas}


@pytest.mark.parametrize(
    ("line", "words"),
    [(["method.betas=[0.9]"], "Adam has two"), (["method.betas=[0.9,0.95]", "method.finetune.optimizer=sgd"], "sgd")],
)
def test_betas_that_do_not_fit_are_refused(make_bench, line, words):
    with pytest.raises(Exception, match=words):
        make_bench("lift", *line).method("method")


class Seen(Callback):
    """Of each step the weight decay, and of the last how many moments lie outside the masks."""

    def __init__(self):
        self.decays, self.outside = [], None

    def on_train_batch_end(self, trainer, module, *args):
        (optimizer,) = trainer.optimizers
        self.decays += {group["weight_decay"] for group in optimizer.param_groups}
        sparse = [a for a in adapters.adapters(module.model) if hasattr(a, "mask")]
        self.outside = sum(int(optimizer.state[a.entries]["exp_avg"][~a.mask].count_nonzero()) for a in sparse)


def decayed(make_bench, folder, *options):
    """SoMA at the end of its fit, and the decays that were seen."""
    seen = Seen()
    return finished(make_bench("soma", *options, callbacks=[seen]), folder, own=True)[0], seen


def test_somas_weight_decay_falls_by_a_half_cosine(make_bench, tmp_path):
    method, seen = decayed(make_bench, tmp_path)
    steps = len(seen.decays)
    wanted = [1e-5 + (0.05 - 1e-5) * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert seen.decays == pytest.approx(wanted)
    assert method.weight_decay(steps, steps) == pytest.approx(1e-5)


DECAYS = {
    "decay_vectors": ("+method.finetune.decay_vectors=false", {0.0, 1.0}),
    "groups": ("+method.finetune.groups={bias: {weight_decay: 0.01}}", {0.2, 1.0}),
}


@pytest.mark.parametrize(("option", "shares"), DECAYS.values(), ids=DECAYS)
def test_somas_groups_keep_their_share_of_the_decay(option, shares, make_bench, tmp_path):
    """Biases that have none at first have none at the end, and a fifth stays a fifth."""
    method, seen = decayed(make_bench, tmp_path, option)
    steps = method.epochs * method.steps_per_epoch
    for step, decays in zip(range(steps), zip(*[iter(seen.decays)] * len(shares), strict=True), strict=True):
        wanted = sorted(share * method.weight_decay(step, steps) for share in shares)
        assert sorted(decays) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("pattern", [r"layers\.1$", r"^backbone\.layers\.1\b", r"layers\.1\."])
def test_of_somas_frozen_layers_nothing_is_trained(pattern, make_bench, fitted, source):
    """No adapter and no bias, though `trained` has all biases. By the name of a layer, or of its parameters."""
    name = "backbone.layers.1"
    of_layer = {f"{name}.{key}" for key in ("weight", "bias")}
    option = f"method.frozen='{pattern}'"
    method = begun(make_bench("soma", option), source)
    trained = trainable(method)
    assert not {n for n in trained if n.startswith(f"{name}.")}
    assert {"backbone.layers.3.bias", "backbone.layers.3.adapters.0.up", "head.weight"} <= trained
    after = fitted("soma", option).model.state_dict()
    assert {n for n, tensor in after.items() if torch.equal(tensor, source[n])} >= of_layer
    control = trainable(begun(make_bench("soma"), source))
    assert {f"{name}.bias", f"{name}.adapters.0.up"} <= control


def test_what_soma_is_to_freeze_must_be_there(make_bench, source):
    with pytest.raises(ValueError, match="frozen: 'nowhere' is found in no name"):
        begun(make_bench("soma", "method.frozen=nowhere"), source)


def test_without_a_first_decay_somas_groups_keep_their_own(make_bench, tmp_path):
    none = ("method.finetune.weight_decay=0.0", "+method.finetune.groups={up: {weight_decay: 0.1}}")
    assert set(decayed(make_bench, tmp_path, *none)[1].decays) == {0.0, 0.1}


def test_somas_biases_begin_and_end_without_a_decay(make_bench, source):
    """What has one dimension are the biases."""
    method = begun(make_bench("soma", DECAYS["decay_vectors"][0]), source)
    groups = method.configure_optimizers()["optimizer"].param_groups
    of_vectors = [share for group, share in zip(groups, method.shares, strict=True) if group["params"][0].dim() == 1]
    assert of_vectors
    assert set(of_vectors) == {0.0}
    assert set(method.shares) == {0.0, 1.0}


@pytest.mark.parametrize("name", ["lift", "sara"])
def test_the_optimizer_forgets_entries_that_leave_the_mask(name, make_bench, tmp_path, monkeypatch):
    found = []
    for forget in (True, False):
        if not forget:
            monkeypatch.setattr(adapters, "forget_outside", lambda *args: None)
        seen = Seen()
        options = ["method.every=3"] if name == "lift" else ["method.threshold=0.05"]
        finished(make_bench(name, *options, callbacks=[seen]), tmp_path / str(forget), own=True)
        found.append(seen.outside)
    assert found[0] == 0 < found[1]


def test_ba_lora_without_its_penalties_is_pissa(fitted):
    none = [f"method.{name}=0.0" for name in ("consistency", "diversity", "spectrum")]
    plain, bare, whole = (fitted(*line).model.state_dict() for line in (["pissa"], ["ba_lora", *none], ["ba_lora"]))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in bare.items())
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in whole.items())


def test_ba_loras_record_has_its_terms_without_their_weights(make_bench, source):
    """For a batch and a head that has moved away from the teacher's: by hand, and as the loss has them."""
    bench = make_bench("ba_lora", "method.consistency=2.0", "method.diversity=3.0", "method.spectrum=0.5")
    method = begun(bench, source)
    batch = next(iter(bench.setting.loader("train")))
    with torch.no_grad():
        method.model.head.weight += 0.3 * torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
        logits, taught = method.model(batch.inputs), method.teacher(batch.inputs)
    wanted = {"consistency": penalties.normalized_distance(logits, taught), "diversity": penalties.correlated(logits)}
    wanted["spectrum"] = penalties.spread(logits, 3)
    loss = method.loss(batch)
    plain = method.objective.loss(logits, batch.targets)
    torch.testing.assert_close(method.last_terms, wanted)
    torch.testing.assert_close(loss - plain, sum(w * wanted[t] for t, w in method.weights.items()))
    assert wanted["consistency"] > 1e-3 < wanted["diversity"]


def test_ba_loras_terms_are_in_the_record(fitted):
    terms = fitted("ba_lora").outcome["terms"]
    assert [*terms] == ["consistency", "diversity", "spectrum"]
    assert terms["consistency"] > 0 < terms["diversity"]
    assert -1 <= terms["spectrum"] < 0


def test_ba_loras_teacher_is_the_source(make_bench, source):
    bench = make_bench("ba_lora")
    method = begun(bench, source)
    batch = next(iter(bench.setting.loader("train")))
    torch.testing.assert_close(method.teacher(batch.inputs), method.model(batch.inputs), rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in method.teacher.parameters())


# --- penalties of outputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [penalties.normalized_distance, penalties.divergence])
def test_a_student_that_is_its_teacher_is_at_no_distance(distance):
    logits = normal(9, 4)
    assert distance(logits, logits) == pytest.approx(0, abs=1e-15)
    assert distance(logits, normal(9, 4)) > 0.01


def test_the_distances_by_hand():
    """Rows (3, 4) and (4, 3) of length 5; probabilities 3/4, 1/4 of the teacher and 1/2, 1/2."""
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    torch.testing.assert_close(penalties.normalized_distance(student, teacher), torch.tensor(0.2**2))
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = penalties.divergence(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]))
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_diverse_outputs_are_uncorrelated():
    basis = torch.linalg.qr(normal(8, 8) - normal(8, 8).mean())[0]
    centred = torch.linalg.qr(torch.cat([torch.ones(8, 1, dtype=torch.float64), basis[:, :3]], dim=1))[0][:, 1:]
    assert penalties.correlated(centred) == pytest.approx(0, abs=1e-20)
    logits = normal(8, 3)
    covariance = torch.cov(logits.T)
    off = covariance - torch.diag(covariance.diagonal())
    torch.testing.assert_close(penalties.correlated(logits), off.square().sum() / 3)


def test_entropy_is_largest_where_all_classes_are_alike():
    assert penalties.negative_entropy(torch.zeros(2, 5)) == pytest.approx(-math.log(5))
    assert penalties.negative_entropy(torch.tensor([[50.0, 0.0]])) == pytest.approx(0)


@pytest.mark.parametrize(("rank", "wanted"), [(1, -1), (2, -1), (3, -2 / 3)])
def test_the_share_of_leading_values(rank, wanted):
    u, v = (torch.linalg.qr(normal(n, n))[0] for n in (7, 4))
    logits = (u[:, :rank] @ v[:rank]).requires_grad_()  # singular values of one
    share = penalties.spread(logits, 2)
    assert share.item() == pytest.approx(wanted)
    share.backward()
    assert logits.grad.isfinite().all()


# --- directions of inputs ----------------------------------------------------------------------------------


def batches(inputs, size):
    return [Batch(part, torch.zeros(len(part))) for part in inputs.split(size)]


@pytest.fixture(scope="module")
def inputs():
    """Variances 10, 5, 1 and little else, about a mean, in a rotated frame; the same whatever ran before."""
    GENERATOR.manual_seed(0)
    spread = torch.tensor([10.0, 5.0, 1.0, 0.1, 0.1, 0.1], dtype=torch.float64)
    rotation = torch.linalg.qr(normal(6, 6))[0]
    return (normal(600, 6) * spread.sqrt()) @ rotation.T + 3, rotation


def angles(one, other):
    """Cosines between two subspaces, given by orthonormal rows."""
    return torch.linalg.svdvals(one @ other.T)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def test_directions_are_those_of_the_largest_variance(inputs, net):
    x, rotation = inputs
    found = explained(net, ["0", "2"], batches(x, 100), rank=2, rho=1, tau=1.0)
    rows = found.directions["0"]
    torch.testing.assert_close(rows @ rows.T, torch.eye(2, dtype=torch.float64))
    assert angles(rows, rotation[:, :2].T).min() > math.cos(math.radians(5))
    # Against the decomposition of everything at once, and not about zero.
    centred = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    assert angles(rows, centred.Vh[:2]).min() > 0.999
    assert angles(rows, torch.linalg.svd(x, full_matrices=False).Vh[:2]).min() < 0.9
    shares = centred.S.square() / centred.S.square().sum()
    torch.testing.assert_close(found.ratios["0"], shares[:2], rtol=1e-2, atol=0)
    torch.testing.assert_close(
        (found.whitened("0") @ (x - x.mean(0)).T).std(dim=1), torch.ones(2).double(), rtol=0.02, atol=0
    )


def test_the_search_ends_when_directions_stand_still(inputs, net):
    x, _ = inputs
    looked = [explained(net, ["0"], batches(x, 50), 2, 1.0, tau).batches for tau in (0.0, 0.99, 1.1)]
    assert looked[0] == 2 <= looked[1] < looked[2] == 12  # there is none before the first; never; all


def test_each_layer_is_looked_at_until_its_own_directions_stand_still(inputs, net):
    x, _ = inputs
    together = explained(net, ["0", "2"], batches(x, 50), 2, 1.0, 0.999)
    alone = {name: explained(net, [name], batches(x, 50), 2, 1.0, 0.999) for name in ("0", "2")}
    assert alone["0"].batches != alone["2"].batches  # else nothing is shown
    assert together.batches == max(one.batches for one in alone.values())
    for name, one in alone.items():
        torch.testing.assert_close(together.directions[name], one.directions[name], rtol=0, atol=0)


def test_padding_has_no_directions():
    """Rows of padding are far from all others: they would be the first direction."""
    x = normal(4, 5, 3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 0, 0, 0, 0]])
    x[mask == 0] = 100.0
    net = OfMapping(nn.Linear(3, 2).double())
    batch = Batch({"x": x, "attention_mask": mask}, torch.zeros(4))
    found = explained(net, ["layer"], [batch], 2, 1.0, 1.0)
    counted = x[mask.bool()]
    exact = torch.linalg.svd(counted - counted.mean(0), full_matrices=False).Vh[:2]
    torch.testing.assert_close(angles(found.directions["layer"], exact), torch.ones(2).double())
    padded = explained(net, ["layer"], [Batch({"x": x}, torch.zeros(4))], 2, 1.0, 1.0)  # the control
    assert angles(padded.directions["layer"], exact).min() < 0.99


class OfMapping(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs):
        return self.layer(inputs["x"])


def test_short_batches_are_left_out_and_alone_refused(inputs, net):
    x, _ = inputs
    assert explained(net, ["0"], batches(x[:103], 50), 2, 2.0, 1.1).batches == 2
    with pytest.raises(ValueError, match="no batch has the 4 rows"):
        explained(net, ["0"], batches(x, 3), 2, 2.0, 0.99)
    with pytest.raises(ValueError, match="linear layers alone, not of: 1"):
        explained(net, ["0", "1"], batches(x, 50), 2, 1.0, 0.99)


def test_eva_trains_as_many_ranks_as_lora_where_they_explain_most(fitted):
    method = fitted("eva")
    ranks = method.outcome["ranks"]
    assert sum(ranks.values()) == 2 * 4
    assert method.outcome["batches"] > 1
    kept = {n: t for n, t in method.adapter_state.items() if n.endswith("down")}
    assert {n.removesuffix(".adapters.0.down"): len(t) for n, t in kept.items()} == {
        n: r for n, r in ranks.items() if r
    }
    even = fitted("eva", "method.rho=1.0").outcome["ranks"]
    assert set(even.values()) == {4}


@pytest.mark.parametrize(
    "name", ["lora", "dora", "soma", "miss", "salt", "svfit", "sorsa", "adalora", "random_mask", "lift"]
)
def test_rows_of_a_fused_projection_that_are_meant_move_and_no_others(name, fitted, source):
    """Each range has an adapter of its own; the other layer one for all rows."""
    method = fitted(name, "method.rows={layers.1: [[0, 5], [9, 16]]}")
    ends = method.model.state_dict()
    first, second = (
        (ends[f"{n}.weight"] != source[f"{n}.weight"]).any(1) for n in ("backbone.layers.1", "backbone.layers.3")
    )
    assert first.nonzero().flatten().tolist() == [*range(5), *range(9, 16)]
    assert second.all()
    places = {key.rpartition(".")[0] for key in method.adapter_state if ".adapters." in key}
    assert places == {f"backbone.layers.{place}" for place in ("1.adapters.0", "1.adapters.1", "3.adapters.0")}


@pytest.mark.parametrize(
    ("method", "rows", "reason"),
    [
        ("eva", "[[0, 8]]", "eva adapts whole layers"),
        ("lora", "[[0, 8, 12]]", "each range has a start and a stop"),
        ("lora", "[[0, 8], [4, 16]]", "not separate ranges within 0 … 16"),
    ],
)
def test_rows_that_cannot_be_are_refused(method, rows, reason, make_bench, source):
    with pytest.raises(Exception, match=reason):
        begun(make_bench(method, f"+method.rows={{layers.1: {rows}}}"), source)
