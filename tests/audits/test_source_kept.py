"""What is kept of the source's data, by hand from the weights a run leaves; what cannot be asked is refused at once."""

import math

import pytest
import torch
from safetensors.torch import load_file

from fisherexp.config.explain import composed, explain
from fisherexp.experiment import run_experiment
from fisherexp.runs.workbench import Workbench

SMALL = [
    "model=mlp",
    "model.hidden=[16,12]",
    "training.epochs=3",
    "threads=1",
    "progress=off",
    "audit=source_kept",
    "logger=[]",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("kept")

    def make(method):
        cfg = composed([*SMALL, f"method={method}", "method.finetune.epochs=3", f"output_dir={output_dir}"])
        return cfg, run_experiment(cfg, output_dir / method, []), output_dir / method

    return make


def test_a_head_on_the_sources_features_keeps_all_and_what_moves_them_does_not(run):
    _, head_only, _ = run("head_only")
    before, after = (head_only["metrics"][stage]["source_accuracy"] for stage in ("before", "after"))
    assert before == after > 50
    assert head_only["headings"]["source_accuracy"] == "source\nacc. %"
    cfg, full, folder = run("full")
    assert full["metrics"]["before"]["source_accuracy"] == before
    there = Workbench(cfg).on_data("source.data")
    source, model = there.trained("source.method").tensors, there.classifier("by hand")
    model.load_state_dict(load_file(folder / "weights.safetensors") | {n: source[n] for n in source if "head" in n})
    odd = there.setting.parts["test"]
    with torch.no_grad():
        right = model.eval()(odd.inputs).argmax(1) == odd.targets
    kept = 100 * right.double().mean().item()
    assert full["metrics"]["after"]["source_accuracy"] == pytest.approx(kept)
    assert kept < before


@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_where_something_is_put_aside_the_test_part_counts_unless_one_is_to_choose(evaluate_on, tmp_path):
    aside = ["data.validation=0.3", "source.data.validation=0.3", "method=head_only", "method.finetune.epochs=1"]
    cfg = composed([*SMALL, *aside, f"evaluate_on={evaluate_on}", f"output_dir={tmp_path}"])
    found = run_experiment(cfg, tmp_path / "run", [])["metrics"]["before"]["source_accuracy"]
    parts = Workbench(composed([*SMALL, *aside, f"output_dir={tmp_path}"])).on_data("source.data").data
    there = Workbench(cfg).on_data("source.data")
    model = there.classifier("by hand").eval()
    model.load_state_dict(there.trained("source.method").tensors)
    accuracies = {}
    for name, part in (("test", parts.test), ("validation", parts.validation)):
        with torch.no_grad():
            right = model(part.inputs).argmax(1) == part.targets
        accuracies[name] = 100 * right.double().mean().item()
    assert found == pytest.approx(accuracies[evaluate_on])
    assert accuracies["test"] != pytest.approx(accuracies["validation"], rel=1e-3)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["method=lora"], None),  # the control
        (["method=lora", "source=trained"], "SourceKept needs a source trained on data of its own"),
        (["method=erm"], "SourceKept asks what is kept of a source, and this method starts with none"),
        (["method=lora", "data.validation=0.2", "evaluate_on=validation"], "of which the source's data put none aside"),
        (["method=ssd"], None),  # of another scenario, at which this audit does not look
    ],
)
def test_what_cannot_be_asked_is_refused_before_data_are_read(lines, words):
    problems = [str(problem) for problem in explain(["audit=source_kept", *lines])]
    assert len(problems) == (words is not None)
    assert all(words in problem and "nearest valid" in problem for problem in problems)


def test_a_language_model_is_asked_as_it_is(tmp_path):
    """Its own head says what the next character is in both texts."""
    for name, text in (("source", "to be, or not to be. "), ("target", "if x == 1:\n    y = 2\n")):
        (tmp_path / f"{name}.txt").write_text(text * 30)
    files = [f"{node}.path={tmp_path}/{name}.txt" for node, name in (("data", "target"), ("source.data", "source"))]
    texts = ["data=characters", "source=trained", "data@source.data=characters", *files]
    texts += [f"{node}.{option}" for node in ("data", "source.data") for option in ("alphabet=ascii", "context=8")]
    net = ["model=char_gpt", "model.dim=8", "model.depth=1", "model.heads=1", "model.tied=false"]
    rest = [line for line in SMALL if not line.startswith("model")]
    line = [*rest, *texts, *net, "method=full", "method.finetune.epochs=2", f"output_dir={tmp_path}"]
    assert explain(line) == []
    cfg = composed(line)
    record = run_experiment(cfg, tmp_path / "run", [])
    there = Workbench(cfg).on_data("source.data")
    model, part = there.classifier("by hand"), there.setting.parts["test"]
    found = {}
    weights = {
        "before": there.trained("source.method").tensors,
        "after": load_file(tmp_path / "run/weights.safetensors"),
    }
    for stage, tensors in weights.items():
        model.load_state_dict(tensors)
        with torch.no_grad():
            logits = model.eval()(part.inputs)
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part.targets.flatten())
        found[stage] = {"source_bits": nats.item() / math.log(2)}
        found[stage]["source_accuracy"] = 100 * (logits.argmax(-1) == part.targets).double().mean().item()
    for stage, figures in found.items():
        assert {name: record["metrics"][stage][name] for name in figures} == pytest.approx(figures, rel=1e-5)
    assert found["before"]["source_bits"] != pytest.approx(found["after"]["source_bits"], rel=1e-3)
