"""Experts and what is known of them: trained once from the source, each on its own task, and measured there."""

import pytest
import torch
from pairs import pairs

from fisherexp.config.explain import composed
from fisherexp.curvature import fisher_diagonal
from fisherexp.methods.merging.experts import experts
from fisherexp.methods.merging.grams import GramPass
from fisherexp.runs.finished import resolve_needs
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import derive

TASKS = "scenario.tasks=[plain,rotated_90]"
SUITE = ["scenario=tasks", TASKS, "scenario.shared=20"]
SMALL = ["model=mlp", "model.hidden=[12]", "training=small", "training.epochs=3", "progress=off"]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory):
    """A workbench; `epochs` are those of the experts, by default as many as the source's."""
    output_dir = tmp_path_factory.mktemp("experts")

    def make(*overrides: str, suite: list[str] = SUITE, epochs: int | None = None) -> Workbench:
        cfg = composed([*SMALL, *suite, f"output_dir={output_dir}", *overrides])
        if epochs is not None:
            cfg.method.experts.training = cfg.training.copy()
            cfg.method.experts.training.epochs = epochs
        return Workbench(cfg)

    return make


def given(bench) -> dict:
    method = bench.method("method")
    resolve_needs(bench, method, bench.reference("source"))
    return method.given


def test_experts_are_shared_by_methods_and_differ_where_their_training_does(bench_of):
    one, other = (given(bench_of(f"method={method}"))["experts"] for method in ("average", "ties"))
    assert list(one) == ["plain", "rotated_90"]
    for task, state in one.items():
        assert all(torch.equal(other[task][name], tensor) for name, tensor in state.items())
    assert not torch.equal(one["plain"]["head.weight"], one["rotated_90"]["head.weight"])
    longer = given(bench_of("method=average", epochs=4))["experts"]
    assert not torch.equal(one["plain"]["head.weight"], longer["plain"]["head.weight"])
    built = list((bench_of().store.root / "weights").glob("*.safetensors"))
    assert len(built) == 1 + 2 + 2  # the source, its two experts, and those that trained longer


def test_an_expert_without_training_is_the_source(bench_of):
    bench = bench_of("method=average", epochs=0)
    source = bench.reference("source").tensors
    for state in given(bench)["experts"].values():
        assert all(torch.equal(state[name], tensor) for name, tensor in source.items())


def test_experts_are_trained_as_their_method_says(bench_of):
    """The control, full, moves the weights by a matrix of any rank."""
    ranks = {}
    for method in ("full", "lora", "head_only"):
        bench = bench_of("method=average", f"method@method.experts={method}", "method.experts.finetune.epochs=3")
        states, start = given(bench)["experts"].values(), bench.reference("source").tensors["backbone.layers.1.weight"]
        moved = [(state["backbone.layers.1.weight"] - start).double() for state in states]
        ranks[method] = [int(torch.linalg.matrix_rank(change, rtol=1e-5)) for change in moved]
    assert ranks == {"full": [12, 12], "lora": [4, 4], "head_only": [0, 0]}


def test_experts_that_need_more_than_weights_are_refused(bench_of):
    bench = bench_of("method=average", "method@method.experts=eva")
    with pytest.raises(ValueError, match="EVA needs directions"):
        given(bench)


def test_experts_know_their_own_task(bench_of):
    bench = bench_of("method=average", epochs=15)
    model, correct = bench.classifier("evaluate").eval(), {}
    for task, state in given(bench)["experts"].items():
        model.load_state_dict(state)
        parts = {name: bench.setting.parts[f"{name}/test"] for name in bench.setting.tasks}
        correct[task] = {n: (model(p.inputs).argmax(1) == p.targets).double().mean().item() for n, p in parts.items()}
    assert correct["plain"]["plain"] > 0.9 > correct["plain"]["rotated_90"] + 0.1
    assert correct["rotated_90"]["rotated_90"] > 0.9 > correct["rotated_90"]["plain"] + 0.1


@pytest.mark.parametrize(("labels", "gradients"), [("expected", "per_sample"), ("empirical", "batch_mean")])
def test_fishers_are_those_of_each_expert_on_its_own_training_images(labels, gradients, bench_of):
    options = [f"method.importance.gradients={gradients}", f"method.importance.labels={labels}"]
    bench = bench_of("method=fisher_merging", *options)
    found, model = given(bench), bench.classifier("evaluate")
    for task, fisher in found["expert_fishers"].items():
        model.load_state_dict(found["experts"][task])
        loader = bench.setting.loader(f"{task}/train", batch_size=64)
        expected = fisher_diagonal(model, pairs(loader), labels=labels, gradients=gradients)
        for name in expected.names:
            torch.testing.assert_close(fisher[name], expected[name], rtol=1e-4, atol=1e-8)


def test_grams_are_kept(bench_of):
    bench = bench_of("method=regmean")
    found = given(bench)
    alone, weights = experts(bench, bench.method("method"), bench.reference("source"))["rotated_90"]
    grams = GramPass(alone.classifier("grams"))
    grams.model.load_state_dict(weights.tensors)
    for batch in alone.setting.loader("train", batch_size=7):
        grams.training_step(batch, 0)
    for layer, gram in found["expert_grams"]["rotated_90"].items():
        torch.testing.assert_close(gram, grams.sums[layer], rtol=1e-4, atol=1e-3)


def test_other_seeds_are_the_sources_of_those_seeds(bench_of):
    bench = bench_of("method=weight_matching", suite=["scenario=none"])
    (state,) = given(bench)["other_seeds"]
    assert not torch.equal(state["head.weight"], bench.reference("source").tensors["head.weight"])
    again = bench_of("method=ssd", f"seed={derive('other_seed', 0, 1)}", suite=["scenario=none"]).reference("source")
    assert not again.built
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in state.items())
