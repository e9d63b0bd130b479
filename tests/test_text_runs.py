"""Whole runs on texts: plain training, SSD and a Fisher of a tiny BERT; MiniLM on SST-2 from its package."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_bert import save_tiny_bert, write_reviews
from whole_runs import run, valid

from fisherexp.config.explain import composed
from fisherexp.config.locations import located
from fisherexp.curvature import fisher_diagonal
from fisherexp.reports.summary import pretrained_line
from fisherexp.runs.workbench import Workbench

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def config(place):
    """A config on 48 texts for training and 12 for testing; weights of the source are made once for all runs."""
    model = save_tiny_bert(place / "bert")
    train, test = (write_reviews(place / f"{part}.tsv", count) for part, count in (("train", 48), ("test", 12)))
    always = ["data=text_classification", f"data.path={train}", f"data.test_path={test}", "data.batch_size=8"]
    always += ["model=huggingface", f"model.name={model}"]
    always += ["training.epochs=5", "training.lr=0.01", "progress=off", "threads=1", "trainer=cpu"]

    def compose(*lines):
        return valid([*always, f"output_dir={place / 'outputs'}", *lines])

    return compose


def test_plain_training_learns_and_the_record_says_of_what(config, tmp_path):
    record = run(config("method=erm", "scenario=none"), tmp_path / "run")
    assert record["metrics"]["after"]["test_accuracy"] > 90
    assert record["versions"]["transformers"] == transformers.__version__
    name, content = record["semantic"]["model"]["name"]
    assert (name, len(content)) == ("bert", 32)
    assert record["semantic"]["model"]["dtype"] == "float32"
    untrained = run(config("method=erm", "scenario=none", "training.epochs=0"), tmp_path / "untrained")
    assert untrained["metrics"]["after"]["test_accuracy"] < 75  # the control


def test_weights_that_came_with_the_model_are_a_source(config, tmp_path):
    record = run(config("method=fisher", "source=pretrained", "scenario=none"), tmp_path / "run")
    assert record["source"]["origin"]["text"] == "weights that came with the model"
    assert record["source"]["origin"]["model"]["name"][0] == "bert"
    assert pretrained_line(record).endswith("bert, a new head")  # its accuracy is that of no training
    new = run(config("method=erm", "scenario=none", "model.pretrained=false", "training.epochs=0"), tmp_path / "new")
    assert pretrained_line(new) is None  # the control


def test_ssd_forgets_a_class(config, tmp_path):
    record = run(config("method=ssd", "scenario.classes=[0]", "audit.relearn_cap=4"), tmp_path / "run")
    before, after = record["metrics"]["before"], record["metrics"]["after"]
    assert before["forget_accuracy"] > after["forget_accuracy"]
    assert record["outcome"]["selected"] > 0


def test_the_fisher_of_a_run_is_that_of_the_engine(config, tmp_path):
    cfg = config("method=fisher", "scenario=none")
    record = run(cfg, tmp_path / "run")
    bench = Workbench(cfg)
    model = bench.classifier("oracle of this test")
    model.load_state_dict(bench.reference("source").tensors)
    whole = bench.data.train.batch
    wanted = fisher_diagonal(model.eval(), [(whole.inputs, whole.targets)]).trace()
    assert record["outcome"]["trace"] == pytest.approx(float(wanted), rel=1e-4)


def test_what_asks_for_features_gets_them(config):
    bench = Workbench(config("method=erm", "scenario=none"))
    model, inputs = bench.classifier("features").eval(), bench.data.test.inputs
    assert model.features(inputs).shape == (12, 16)
    assert torch.equal(model.logits(model.features(inputs)), model(inputs))


@pytest.fixture(scope="module")
def experts(config, place):
    """A config of two tasks of two classes each: good or bad of something, and what of. Experts are made once."""
    rows = [f"the {thing} is {word}\t{label}" for thing, word, label in FOUR for _ in range(6)]
    file = place / "four.tsv"
    file.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    lines = [f"data.path={file}", f"data.test_path={file}", "scenario=class_tasks", "scenario.groups=[[0,1],[2,3]]"]
    lines += ["scenario.shared=4", "source=trained_head", "source.training.epochs=1", "training.epochs=3"]
    return lambda *more: config(*lines, *more)


FOUR = [(thing, word, label) for thing in ("film", "plot") for word, label in (("good", "a"), ("bad", "b"))]
FOUR += [("very " + word, "so", label) for word, label in (("nice", "c"), ("dull", "d"))] * 2


@pytest.mark.parametrize("method", ["average", "fisher_merging", "regmean", "ties", "tsvm"])
def test_experts_on_texts_are_merged(experts, tmp_path, method):
    cfg = experts(f"method={method}")
    record = run(cfg, tmp_path / "run")
    assert {"0_1_accuracy", "2_3_accuracy"} < set(record["metrics"]["after"])
    bench = Workbench(cfg)
    merging = bench.method("method")
    found, _ = merging.needs[0].resolve(bench, merging, bench.reference("source"))
    merged, states = load_file(tmp_path / "run" / "weights.safetensors"), list(found.values())
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    apart = max((merged[name] - (states[0][name] + states[1][name]) / 2).abs().max().item() for name in merged)
    assert (apart < 1e-6) == (method == "average")


@pytest.mark.parametrize("method", ["svd", "fwsvd", "lq_lora", "magnitude_pruning"])
def test_compression_of_a_transformer_keeps_what_it_says(config, tmp_path, method):
    own = {"lq_lora": ["method.rank=2", "method.block=[16]", "method.budget=5"], "svd": ["method.ratio=0.5"]}
    own |= {"fwsvd": own["svd"], "magnitude_pruning": ["method.sparsities=[0.5]"]}
    lines = [f"method={method}", "scenario=none", "method.finetune.epochs=1", *own[method]]
    outcome = run(config(*lines), tmp_path / "run")["outcome"]
    after = load_file(tmp_path / "run" / "weights.safetensors")
    if method == "magnitude_pruning":
        assert outcome["sparsity"] == pytest.approx(0.5, abs=0.01)
        kept = sum((after[name] != 0).sum().item() for name in outcome["kept_by_layer"])
        assert kept <= outcome["kept"]
        return
    layers = outcome["rank_by_layer"]
    assert len(layers) == 2 * 6
    ranks = {name: torch.linalg.matrix_rank(after[f"{name}.weight"]).item() for name in layers}
    assert method == "lq_lora" or all(ranks[name] <= rank for name, rank in layers.items())


def test_texts_are_calibrated_on_without_their_padding(config, tmp_path):
    """The error of a layer against its outputs for tokens that count; with padding it is another."""
    cfg = config("method=rtn", "scenario=none", "method.bits=2", "method.samples=48")
    record = run(cfg, tmp_path / "run")
    after, bench = load_file(tmp_path / "run" / "weights.safetensors"), Workbench(cfg)
    model, name = bench.classifier("control").eval(), "backbone.network.encoder.layer.1.intermediate.dense"
    before = bench.reference("source").tensors
    model.load_state_dict(before)
    inputs = []
    model.get_submodule(name).register_forward_pre_hook(lambda layer, given: inputs.append(given[0]))
    batch = bench.data.train.batch
    assert not batch.inputs["attention_mask"].all()
    with torch.no_grad():
        model(batch.inputs)
    counted, padded = inputs[0][batch.inputs["attention_mask"].bool()], inputs[0].flatten(0, 1)

    def error(rows):
        kept, lost = before[f"{name}.weight"], before[f"{name}.weight"] - after[f"{name}.weight"]
        return ((rows @ lost.T).norm() / (rows @ kept.T).norm()).item()

    found = record["outcome"]["layers"][name]["output_error"]
    assert found == pytest.approx(error(counted), rel=1e-4)
    assert found != pytest.approx(error(padded), rel=1e-4)
    assert len(record["outcome"]["layers"]) == 2 * 6


@pytest.mark.weights
def test_minilm_tells_reviews_apart_as_new_weights_do_not(tmp_path):
    """After 24 texts; half of it is chance."""
    train, test = (write_reviews(tmp_path / f"{part}.tsv", count) for part, count in (("train", 24), ("test", 12)))
    data = ["data=text_classification", f"data.path={train}", f"data.test_path={test}", "data.batch_size=8"]
    always = ["model=minilm", "method=erm", "scenario=none", *data, "training.epochs=3", "checkpoint_every=1000"]
    always += [f"output_dir={tmp_path / 'outputs'}", "progress=off", "threads=1", "trainer=cpu"]

    def accuracy(name, *options):
        return run(composed([*always, *options]), tmp_path / name)["metrics"]["after"]["test_accuracy"]

    assert accuracy("pretrained") > 90
    assert accuracy("new", "model.pretrained=false") < 80  # the control


@pytest.mark.weights
def test_minilm_learns_sst2(tmp_path):
    """Three quarters of the development set after 300 texts; half of it is chance. Minutes on a core."""
    if located("text/SST-2/train.tsv", None) is None:
        pytest.skip("GLUE's SST-2 is not in the data folder")
    options = ["data.train_size=300", f"output_dir={tmp_path / 'outputs'}", "progress=off", "threads=1"]
    cfg = composed(["model=minilm", "data=sst2", "method=erm", "scenario=none", "checkpoint_every=1000", *options])
    assert run(cfg, tmp_path / "run")["metrics"]["after"]["test_accuracy"] > 70
