"""CSTRL on generated reports: its λ in each epoch, its Fisher, what nothing of it leaves, and what it refuses."""

import pytest
import torch
from pytorch_lightning import Callback
from torch.nn import functional as F

from fisherexp.config.explain import composed, explain
from fisherexp.methods.training.erm import ERM
from fisherexp.runs.workbench import Workbench

SMALL = [
    "data=reports",
    "data.reports=80",
    "data.test_reports=16",
    "data.batch_size=16",
    "model=char_gpt",
    "model.dim=16",
    "model.depth=1",
    "model.heads=2",
    "scenario=task_sequence",
    "scenario.tasks=[gap_sentences,summary]",
    "scenario.few=24",
    "training=small",
    "training.epochs=5",
    "training.optimizer=adam",
    "training.lr=1e-2",
    "training.schedule=constant",
    "progress=off",
    "checkpoint_every=0",
    "threads=1",
]


@pytest.fixture
def small() -> list[str]:
    """64 small reports, 4 batches an epoch, 5 epochs a stage."""
    return SMALL


class Watch(Callback):
    """Before every step: the epoch, the penalty, how much it adds to the loss, and the largest slope of that."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        added = module.loss(batch) - ERM.loss(module, batch)
        penalty, slope = torch.tensor(0.0), 0.0
        if module.memory["anchors"]:
            penalty = module.penalty()
            slopes = torch.autograd.grad(penalty, list(module.model.parameters()))
            slope = max(float(each.abs().max()) for each in slopes)
        self.seen.append((trainer.current_epoch, penalty.detach(), added.detach(), slope))


@pytest.mark.parametrize("schedule", ["linear_floor", "constant"])
@pytest.mark.parametrize("scale", [1, 1000])
def test_the_penalty_counts_as_published_in_each_epoch(make_bench, schedule, scale, tmp_path):
    """λ_e = max(0.2, 0.9 (1 - e/5)) of the second stage, times the scale of both. At θ* all is zero."""
    watch = Watch()
    options = (f"method.schedule={schedule}", f"method.lambda_={0.9 * scale}", f"method.floor={0.2 * scale}")
    bench = make_bench("cstrl", *options, callbacks=[watch])
    bench.fit(bench.method("method"), tmp_path / "fit", "fit", own=True)
    expected = [0] * 5 + ([0.9, 0.72, 0.54, 0.36, 0.2] if schedule == "linear_floor" else [0.9] * 5)
    assert len(watch.seen) == 10 * 4
    for epoch, penalty, added, _ in watch.seen:
        torch.testing.assert_close(added, scale * expected[epoch] * penalty, rtol=1e-3, atol=1e-5)
    _, penalty, added, slope = watch.seen[5 * 4]  # the first step of the second stage
    assert penalty == added == slope == 0
    assert min(watch.seen[-1][1], watch.seen[-1][3]) > 0


def fitted(bench, start, folder):
    method = bench.method("method")
    method.model.load_state_dict(start)
    bench.fit(method, folder, "fit")
    return method


def test_without_strength_it_is_plain_training_bit_for_bit(make_bench, tmp_path):
    plain = make_bench("sequential")
    start = plain.method("method").model.state_dict()
    expected = fitted(plain, start, tmp_path / "plain")
    made = fitted(make_bench("cstrl", "method.lambda_=0"), start, tmp_path / "made")
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], tensor), name
    assert made.outcome["nll"] == expected.outcome["nll"]


def test_its_fisher_is_of_batches_of_labeled_tokens_and_counts_a_tied_weight_once(make_bench, tmp_path):
    """By autograd, batch by batch, without any row beyond its last label: padding takes no part."""
    bench = make_bench("cstrl", "method.importance.batch_size=32")
    method = fitted(bench, bench.method("method").model.state_dict(), tmp_path)
    (anchor,) = method.memory["anchors"]
    names = [name for name, _ in method.model.named_parameters()]
    assert sorted(anchor["omega"]) == sorted(names)
    assert sum("tokens.weight" in name or "head" in name for name in names) == 1
    method.model.load_state_dict(anchor["anchor"], strict=False)
    method.model.eval()
    part = bench.setting.tasks["gap_sentences"].parts["train"]
    expected = {name: torch.zeros_like(p) for name, p in method.model.named_parameters()}
    for tokens, labels in zip(part.inputs.split(32), part.targets.split(32), strict=True):
        losses = []
        for one, asked in zip(tokens, labels, strict=True):
            length = int((asked >= 0).nonzero().max()) + 1
            losses.append(F.cross_entropy(method.model(one[None, :length])[0], asked[:length]))
        slopes = torch.autograd.grad(torch.stack(losses).mean(), list(method.model.parameters()))
        for name, slope in zip(names, slopes, strict=True):
            expected[name] += slope.square() / 2
    for name, omega in anchor["omega"].items():
        assert omega.dtype == torch.float32
        torch.testing.assert_close(omega, expected[name], rtol=1e-3, atol=1e-7)


def test_the_last_stage_has_few_samples_again_and_again(make_bench):
    parts = make_bench("cstrl").setting.tasks["summary"].parts
    assert len(parts["train"]) == 64
    rows, counts = parts["train"].inputs.unique(dim=0, return_counts=True)
    assert len(rows) == 24
    assert set(counts.tolist()) == {2, 3}
    assert len(make_bench("cstrl", "scenario.few=null").setting.parts["summary/train"].inputs.unique(dim=0)) == 64


def test_a_run_says_what_was_lost_and_how_good_its_summaries_are(make_bench, tmp_path):
    bench = make_bench("cstrl")
    method = fitted(bench, bench.method("method").model.state_dict(), tmp_path / "fit")
    found = bench.test(method, tmp_path / "test", "test")
    (first, _), (last, _) = method.outcome["nll"]
    assert found["loss_rise"] == pytest.approx(last - first, abs=1e-5)
    assert {"exact", "rouge_1", "bleu_3", "summary_accuracy", "validation_accuracy"} <= set(found)
    assert set(bench.headings) <= set(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["scenario.few=65"], "scenario.few=65, but a task has only 64 training samples"),
        (["scenario.tasks=[summary,permuted_1]"], "'permuted_1' is no task of .* there are gap_sentences, summary"),
        (["scenario.tasks=[summary,summaries]"], "'summaries' is no task"),
    ],
)
def test_bad_stages_are_refused_in_one_line(make_bench, options, message):
    with pytest.raises(Exception, match=message):
        _ = make_bench("cstrl", *options).setting


def test_gap_sentences_are_no_task_of_images(tmp_path):
    options = ["data=digits", "model=mlp", "scenario=task_sequence", "scenario.tasks=[plain,gap_sentences]"]
    bench = Workbench(composed(["method=cstrl", *options, f"output_dir={tmp_path}"]))
    with pytest.raises(ValueError, match="'gap_sentences' is no task of scikit-learn digits"):
        _ = bench.setting


@pytest.mark.parametrize(
    ("method", "needed"),
    [("mas", "class_labels"), ("sequential_lora", "floats"), ("lora_ewc", "floats"), ("alignguard_lora", "floats")],
)
def test_methods_that_text_does_not_suit_say_so(method, needed):
    (problem,) = explain([f"method={method}", *SMALL])
    assert f"requires {needed}, Reports provides features and next_tokens and tokens" in str(problem)
