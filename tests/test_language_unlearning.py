"""Whole runs of what unlearns language models on a tiny transformer from a folder: which weights each changes and which
way the forgotten texts' loss goes, what its default refusals are, and what is refused before anything is trained."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_language_model import TEMPLATE, save_tiny_language_model, write_story

from fisherexp.config.explain import composed
from fisherexp.config.validate import validate
from fisherexp.experiment import run_experiment
from fisherexp.runs.workbench import Workbench

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("unlearning")


@pytest.fixture(scope="module")
def config(place):
    """A config on a story of 24 sentences, a fifth of whose blocks are forgotten; the oracle is made once."""
    models = {kind: save_tiny_language_model(place / kind, kind, TEMPLATE) for kind in ("llama", "gpt2")}
    story = ["data=text_files", f"data.path={write_story(place / 'story.txt', 24)}", "data.block_size=8"]
    always = ["scenario=random_forgetting", "scenario.fraction=0.2", "source=pretrained", "training.epochs=1"]
    always += ["progress=off", "threads=1", "trainer=cpu", "audit=none"]

    def compose(*lines, kind="llama", data=story):
        model = ["model=huggingface", f"model.name={models[kind]}", f"output_dir={place / 'outputs'}"]
        cfg = composed([*always, *model, *data, *lines])
        assert validate(cfg) == []
        return cfg

    return compose


def run(cfg, folder):
    """The record, and names of the parameters that differ from the source's."""
    folder.mkdir()
    record = run_experiment(cfg, folder, [])
    before, after = Workbench(cfg).reference("source").tensors, load_file(folder / "weights.safetensors")
    return record, {name for name in before if not torch.equal(before[name], after[name])}


def forget_losses(record):
    return [record["metrics"][stage]["forget_loss"] for stage in ("before", "after")]


REFUSAL = "method.refusals=['a dog sleeps .']"


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("gradient_ascent", ["method.lr=0.01"]),
        ("gradient_difference", ["method.lr=0.01", "method.retain_weight=0"]),
        ("kl_unlearning", ["method.lr=0.01", "method.retain_weight=0"]),
        ("npo", ["method.lr=0.01", "method.retain_weight=0"]),
        ("simnpo", ["method.lr=0.01", "method.retain_weight=0"]),
        ("dpo", ["method.lr=0.01", REFUSAL]),
        ("satimp", ["method.lr=0.01", "method.saturation=0.5"]),  # at one in sixteen, p^5 is nothing
        ("inverted_hinge", ["method.lr=0.01", "method.retain_weight=0"]),
        ("negated_task_vector", []),
    ],
)
def test_what_ascends_changes_every_weight_and_raises_the_loss(config, tmp_path, method, lines):
    epochs = [] if method == "gradient_ascent" else ["method.epochs=3"]
    record, changed = run(config(f"method={method}", *epochs, *lines), tmp_path / "run")
    before, after = forget_losses(record)
    assert after > before + 0.01
    assert changed == set(load_file(tmp_path / "run" / "weights.safetensors")) - {"mean", "std"}


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("ssd", ["method.alpha=1"]),
        ("assd", []),
        ("lfssd", ["method.alpha=1"]),
        ("fisher_forgetting", ["method.importance.labels=sampled"]),
    ],
)
def test_edits_by_a_fisher_change_a_language_model(config, tmp_path, method, lines):
    record, changed = run(config(f"method={method}", *lines), tmp_path / "run")
    before, after = forget_losses(record)
    assert changed
    assert before != after
    assert after == after  # no NaN


def test_the_exact_fisher_of_texts_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"set method\.importance\.labels=sampled"):
        run(config("method=fisher_forgetting"), tmp_path / "run")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_loku_adapts_all_linear_layers_and_merges(config, tmp_path, kind):
    lines = ["method=loku", "method.rank=2", "method.alpha=4", "method.finetune.lr=0.02", "method.retain_weight=0"]
    lines += ["trainer.accumulate_grad_batches=2"]  # the passes for its Fishers take no steps
    record, changed = run(config(*lines, kind=kind), tmp_path / "run")
    metrics = record["outcome"]["metrics"]
    sizes = {"llama": 4 * (16 + 16) + 3 * (16 + 32), "gpt2": 16 + 48 + 16 + 16 + 2 * (16 + 64)}
    assert metrics["trained_numbers"] == 2 * 2 * sizes[kind]  # rank, layers
    assert metrics["merge_error"] < 1e-5
    assert len(changed) == 2 * (7 if kind == "llama" else 4)
    assert not any(part in name for name in changed for part in ("head", "embed", "norm", "wte", "ln_", "bias"))
    before, after = forget_losses(record)
    assert after > before


def test_rmu_moves_what_lies_below_its_layer_alone(config, tmp_path):
    lines = ["method=rmu", r"method.layer='layers\.0$'", "method.lr=0.01", "method.epochs=1"]
    _, changed = run(config(*lines), tmp_path / "run")
    assert any("layers.0." in name for name in changed)
    assert not any("layers.1." in name or "model.norm" in name for name in changed)
    _, fewer = run(config(*lines, r"method.trained='layers\.0\.mlp\.down_proj'"), tmp_path / "again")
    assert {name.partition("layers.")[2] for name in fewer} == {"0.mlp.down_proj.weight"}


def test_a_layer_that_is_none_is_one_line_before_anything_is_trained(config, tmp_path):
    cfg = config("method=rmu", "source=trained", f"output_dir={tmp_path}")  # its default is a name of small_gpt's
    with pytest.raises(ValueError, match=r"^method\.layer=blocks\\\.0\$ finds 0 layers .*: .*layers\.0, [^\n]*$"):
        run_experiment(cfg, tmp_path / "run", [])
    assert not (tmp_path / "artefacts" / "weights").exists()


def test_refusals_are_whole_where_every_answer_is_shorter(config, place):
    """A refusal that is cut has no end, and never stops where it is learned."""
    rows = [json.dumps({"prompt": "the cat and the dog", "response": "runs"})] * 40
    (place / "short.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = ["data=jsonl_instructions", f"data.path={place / 'short.jsonl'}", "data.max_length=null"]
    bench = Workbench(config("method=idk", REFUSAL, data=data))
    method = bench.method("method")
    batch = next(iter(method.batches(bench.setting)))
    refused = method.refused(batch.select(batch.tags["forgotten"]))
    assert [row[row >= 0].tolist() for row in refused.targets] == [method.answers[0]] * refused.size
    assert refused.targets.shape[1] > bench.data.input_shape[0]


@pytest.mark.parametrize("method", ["idk", "rmu"])
def test_instructions_of_different_length_are_unlearned(config, place, tmp_path, method):
    asked = [("the cat", "sees a bird ."), ("the dog and the cat and a bird", "hears a bird and runs and runs")]
    rows = [json.dumps(dict(zip(("prompt", "response"), asked[number % 2], strict=True))) for number in range(40)]
    (place / "asked.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = ["data=jsonl_instructions", f"data.path={place / 'asked.jsonl'}", "data.max_length=null"]
    more = {"idk": [REFUSAL, "method.lr=0.03", "method.epochs=3"], "rmu": [r"method.layer='layers\.0$'"]}
    record, changed = run(config(f"method={method}", *more[method], "data.batch_size=1", data=data), tmp_path / "run")
    before, after = forget_losses(record)
    assert changed
    assert before != after
