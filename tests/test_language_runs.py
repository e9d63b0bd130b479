"""Whole runs of language models from a folder, on text files and on instructions: what works on other networks does so
on them, with the engine's own Fisher as its oracle."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_language_model import CONTEXT, TEMPLATE, save_tiny_language_model, write_story
from tiny_muse import write
from whole_runs import run, valid

from fisherexp import quantization
from fisherexp.contract.method import StopAfter
from fisherexp.curvature import fisher_diagonal
from fisherexp.experiment import run_experiment
from fisherexp.models.generation import generate
from fisherexp.runs.workbench import Workbench

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="module")
def config(place):
    """A config on a story of 60 sentences; weights of the source are made once for all runs on a model."""
    models = {kind: save_tiny_language_model(place / kind, kind, TEMPLATE) for kind in ("llama", "gpt2")}
    story = ["data=text_files", f"data.path={write_story(place / 'story.txt', 60)}", "data.block_size=8"]
    always = ["scenario=none", "training.epochs=5", "training.lr=0.01", "progress=off", "threads=1", "trainer=cpu"]

    def compose(*lines, kind="llama", data=story):
        model = ["model=huggingface", f"model.name={models[kind]}", f"output_dir={place / 'outputs'}"]
        return valid([*always, *model, *data, *lines])

    return compose


def test_plain_training_learns_from_the_weights_that_came_with_the_model(config, tmp_path):
    untrained = run(config("method=erm", "training.epochs=0"), tmp_path / "untrained")
    trained = run(config("method=erm"), tmp_path / "trained")
    before, after = (record["metrics"]["after"] for record in (untrained, trained))
    assert before["test_nll"] > 2.5 > 1.5 > after["test_nll"]  # an even guess of 16 tokens costs 2.8
    assert trained["semantic"]["model"]["task"] == "causal_lm"
    name, content = trained["semantic"]["model"]["name"]
    assert (name, len(content)) == ("llama", 32)
    bench = Workbench(config("method=erm"))
    model, batch = bench.classifier("control").eval(), bench.data.test.batch
    theirs = transformers.AutoModelForCausalLM.from_pretrained(bench.cfg.model.name)
    labels = batch.inputs["input_ids"]
    wanted = torch.nn.functional.cross_entropy(theirs(labels).logits.flatten(0, 1), batch.targets.flatten())
    assert before["test_nll"] == pytest.approx(wanted.item(), rel=1e-5)
    assert model(batch.inputs).shape == (*labels.shape, 16)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_weights_are_stored_in_few_bits_and_their_outputs_brought_back(config, tmp_path, kind):
    """Of GPT-2, too, whose layers hold their matrices transposed; the head, which is the embedding, stays."""
    always = ["method.bits=2", "method.group=8", "method.rank=8", "method.grid=symmetric_full"]
    methods = {"zeroquant_v2": [], "qera_exact": [], "eora": ["method.compressor=gptq"], "fisher_low_rank": []}
    if kind == "llama":
        methods["kfac_low_rank"] = []
    records = {m: run(config(f"method={m}", *always, *more, kind=kind), tmp_path / m) for m, more in methods.items()}
    layers = {name: record["outcome"]["layers"] for name, record in records.items()}
    assert {len(found) for found in layers.values()} == {2 * (7 if kind == "llama" else 4)}
    for name, exact in layers["qera_exact"].items():
        assert exact["output_error"] <= layers["zeroquant_v2"][name]["output_error"] * (1 + 1e-3)
    after = load_file(tmp_path / "qera_exact" / "weights.safetensors")
    stored = quantization.load(tmp_path / "qera_exact" / "quantized.safetensors")
    for name, found in stored.items():
        weight = found.weight().float()
        assert torch.equal(after[f"{name}.weight"], weight.T if kind == "gpt2" else weight)
    bare = run(config("method=svdquant", "method.rank=2", "method.steps=3", kind=kind), tmp_path / "svdquant")
    assert bare["metrics"]["after"]["activation_bits"] == 4


def test_gradients_of_small_batches_summed_are_that_of_a_large_one(config, tmp_path):
    """And bf16-mixed trains weights of single precision to nearly the same."""
    always = ["method=erm", "data.train_size=32", "training.optimizer=sgd", "training.lr=0.5", "training.epochs=2"]
    small = "data.batch_size=4"
    lines = {
        "large": ["data.batch_size=8"],
        "summed": [small, "trainer.accumulate_grad_batches=2"],
        "small": [small],
        "mixed": ["data.batch_size=8", "trainer.precision=bf16-mixed"],
    }
    trained = {}
    for name, more in lines.items():
        run(config(*always, *more), tmp_path / name)
        trained[name] = load_file(tmp_path / name / "weights.safetensors")

    def apart(name):
        return max((trained[name][part] - wanted).abs().max().item() for part, wanted in trained["large"].items())

    assert apart("summed") < 1e-5 < 0.01 < apart("small")
    assert 1e-5 < apart("mixed") < 0.01
    assert {tensor.dtype for tensor in trained["mixed"].values()} == {torch.float32}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_fisher_is_that_of_the_engine_over_sequences(config, tmp_path, kind):
    cfg = config("method=fisher", "source=pretrained", kind=kind)
    record = run(cfg, tmp_path / "run")
    assert record["source"]["origin"]["text"] == "weights that came with the model"
    assert record["pretrained"]["text"].endswith(", with its head")
    bench = Workbench(cfg)
    model, whole = bench.classifier("oracle of this test").eval(), bench.data.train.batch
    batches = [(whole.inputs, whole.targets)]
    wanted = fisher_diagonal(model, batches, loss="sequence").trace()
    assert record["outcome"]["trace"] == pytest.approx(float(wanted), rel=1e-4)
    losses = bench.data.objective.sample_losses(model(whole.inputs), whole.targets)
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for loss in losses[:4]:
        grads = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        for name, grad in zip(found, grads, strict=True):
            found[name] += grad.square() / 4
    first = whole.map(lambda tensor: tensor[:4])
    few = fisher_diagonal(model, [(first.inputs, first.targets)], loss="sequence")
    assert float(few.trace()) == pytest.approx(sum(part.sum().item() for part in found.values()), rel=1e-4)


def test_ssd_forgets_some_blocks(config, tmp_path):
    lines = ["method=ssd", "scenario=random_forgetting", "scenario.fraction=0.2", "source=pretrained"]
    record = run(config(*lines, "method.alpha=1", "training.epochs=1"), tmp_path / "run")
    assert record["outcome"]["selected"] > 0
    before, after = (record["metrics"][stage]["forget_loss"] for stage in ("before", "after"))
    assert before != after


LORA = [
    "method=lora",
    "source=pretrained",
    "method.finetune.epochs=2",
    "method.finetune.lr=0.02",
    "method.trained=null",
]


@pytest.mark.parametrize(("kind", "targets"), [("llama", "(q|v)_proj$"), ("gpt2", "fused_qkv")])
def test_lora_trains_projections_apart_and_fused(config, tmp_path, kind, targets):
    targets = f"method.targets='{targets}'"
    record = run(config(*LORA, targets, "method.finetune.epochs=3", kind=kind), tmp_path / "run")
    untrained = run(config(*LORA, targets, "method.finetune.epochs=0", kind=kind), tmp_path / "untrained")
    rank, layers = 4, 2
    sizes = {"llama": 2 * (16 + 16), "gpt2": 16 + 48}
    assert record["outcome"]["metrics"]["trained_numbers"] == rank * layers * sizes[kind]
    assert record["outcome"]["metrics"]["merge_error"] < 1e-5
    before, after = (found["metrics"]["after"]["test_nll"] for found in (untrained, record))
    assert after < before - 0.05


def test_lq_lora_quantizes_and_trains_on(config, tmp_path):
    lines = ["method=lq_lora", "source=pretrained", "method.rank=2", "method.block=[16]", "method.weight_bits=[2,4]"]
    record = run(config(*lines, "method.finetune.epochs=1", "method.budget=5"), tmp_path / "run")
    layers = record["outcome"]["format_by_layer"]
    assert len(layers) == 14
    assert record["outcome"]["bits_per_weight"] <= 5
    assert not any("head" in name or "embed" in name for name in layers)


@pytest.mark.parametrize("method", ["adam", "galore", "m_fac"])
def test_optimizers_lower_the_loss(config, tmp_path, method):
    record = run(config(f"method={method}", "method.epochs=4"), tmp_path / "run")
    assert record["metrics"]["after"]["test_nll"] < 2.5  # 2.8 before


def test_instructions_are_trained_on_their_responses(config, place, tmp_path):
    asked = [("the cat", "sees a bird ."), ("the dog", "hears a bird and runs")]
    rows = [json.dumps(dict(zip(("prompt", "response"), asked[number % 2], strict=True))) for number in range(40)]
    (place / "it.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = ["data=jsonl_instructions", f"data.path={place / 'it.jsonl'}", "data.max_length=null"]
    record = run(config("method=erm", "training.epochs=8", data=data), tmp_path / "run")
    untrained = run(config("method=erm", "training.epochs=0", data=data), tmp_path / "untrained")
    before, after = (found["metrics"]["after"]["test_nll"] for found in (untrained, record))
    assert after < before / 2


def test_samples_are_those_of_the_trained_model(config, tmp_path):
    lines = ["method=erm", "callbacks=[samples]", "callbacks.samples.given=3", "callbacks.samples.tokens=5"]
    run(config(*lines), tmp_path / "run")
    found = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [set(sample) for sample in found] == 4 * [{"prompt", "written", "wanted"}]
    bench = Workbench(config(*lines))
    first = bench.data.test.batch.inputs["input_ids"][0].tolist()
    assert found[0]["prompt"] == bench.data.text(first[:3])
    assert found[0]["wanted"].split()[:5] == bench.data.text(first[3:]).split()
    model = bench.classifier("samples")
    model.load_state_dict(bench.trained("method").tensors)
    assert found[0]["written"] == bench.data.text(generate(model, [first[:3]], 5)[0])


def test_more_samples_than_the_model_takes_are_refused_before_the_first_batch(config, tmp_path):
    lines = ["method=erm", "callbacks=[samples]", f"callbacks.samples.tokens={CONTEXT}"]
    with pytest.raises(ValueError, match=rf"samples\.tokens={CONTEXT}: the model takes {CONTEXT}, prompt included"):
        run_experiment(config(*lines), tmp_path / "run", [], [StopAfter(1)])


def test_facts_are_forgotten_by_a_pretrained_model(config, place, tmp_path):
    asked = {"cat": "sees", "dog": "hears", "bird": "sleeps"}
    rows = []
    for who, does in asked.items():
        wrong = [f"the {who} {other} ." for other in asked.values() if other != does]
        row = {"question": f"the {who}", "answer": f"the {who} {does} .", "perturbed_answer": wrong}
        rows.append(json.dumps(row))
    (place / "facts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    groups = ("path", "neighbours_path", "world_path", "held_out_path")
    data = ["data=jsonl_facts", "data.facts_per_person=1", "data.batch_size=1"]
    data += [f"data.{name}={place / 'facts.jsonl'}" for name in groups]
    lines = ["scenario=fact_forgetting", "scenario.fraction=0.34", "scenario.max_new_tokens=8", "method=retrain"]
    record = run(config(*lines, "training.epochs=60", data=data), tmp_path / "run")
    before, oracle = (record["metrics"][stage] for stage in ("before", "oracle"))
    assert before["forget_rouge"] == before["retain_rouge"] == oracle["retain_rouge"] == 100
    assert before["forget_probability"] > 90 > 70 > oracle["forget_probability"]
    assert record["metrics"]["after"]["forget_probability"] == oracle["forget_probability"]


def test_texts_are_forgotten_by_a_pretrained_model(config, place, tmp_path):
    """The model's own tokenizer, its marks and its way to write; what it says of a forgotten text, it says no more."""
    seen = {
        "forget": "the cat sees a bird .",
        "retain": "the dog hears a bird .",
        "never": "the cat runs and a dog sleeps .",
    }
    who = {key: " ".join(text.split()[:2]) for key, text in seen.items()}
    files = {
        "raw/forget": [seen["forget"]],
        "raw/retain1": [seen["retain"]],
        "privleak/forget": [seen["forget"]],
        "privleak/holdout": ["a bird runs and sleeps .", seen["retain"]],  # one of them likelier to both
        "verbmem/forget": [{"prompt": who["forget"], "gt": seen["forget"].removeprefix(who["forget"])}],
    }
    for corpus in ("forget", "retain"):
        files[f"knowmem/{corpus}_qa"] = [{"question": who[corpus], "answer": "a bird"}]
    for name, rows in files.items():
        write(place / "muse" / f"{name}.json", rows)
    options = ["data.retain=[raw/retain1]", "data.block_size=16", "data.shots=0", "data.packed=false"]
    data = ["data=muse", f"data.path={place / 'muse'}", *options, "data.batch_size=1"]
    lines = ["scenario=text_forgetting", "scenario.passage_tokens=4", "scenario.answer_tokens=2", "training.epochs=60"]
    record = run(config(*lines, "method=retrain", data=data), tmp_path / "retrain")
    before, after, oracle = (record["metrics"][stage] for stage in ("before", "after", "oracle"))
    assert before["verbmem"] == 100 > oracle["verbmem"] == after["verbmem"]
    assert (oracle["min_k_auc"], oracle["privleak"], after["privleak"]) == (50, 0, 0)
    record = run(config(*lines, "method=gradient_difference", "method.lr=1e-2", data=data), tmp_path / "difference")
    assert record["metrics"]["after"]["verbmem"] < 100
