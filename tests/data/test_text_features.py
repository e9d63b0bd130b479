"""Features of texts against one text at a time through the same network; what is kept, and under which name."""

from functools import partial

import pytest
import torch

pytest.importorskip("transformers")

from tiny_bert import save_tiny_bert, write_reviews

from fisherexp.config.explain import composed
from fisherexp.config.validate import validate
from fisherexp.data import remarks, text_features
from fisherexp.data.text_classification import TextClassification
from fisherexp.data.text_features import TextFeatures
from fisherexp.models.huggingface import HuggingFace
from fisherexp.runs.store import ArtefactStore


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("features")
    save_tiny_bert(place / "bert")
    write_reviews(place / "train.tsv", 40)
    write_reviews(place / "test.tsv", 6)
    return place


def made(place, pooling="mean", store=None, **options):
    files = {"path": str(place / "train.tsv"), "test_path": str(place / "test.tsv")}
    texts = partial(TextClassification, **files | options)
    data = TextFeatures(texts, str(place / "bert"), pooling=pooling)
    data.store = store
    return data.load()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_features_are_those_of_each_text_alone(place, pooling):
    data = made(place, pooling)
    network = HuggingFace(data.network["name"], pooling=pooling, **data.texts.architecture_options).eval()
    for found, rows in ((data.train, data.texts.train), (data.test, data.texts.test)):
        with torch.no_grad():
            alone = torch.cat([network(**batch.inputs) for batch in rows.loader(1, shuffle=False)])
        torch.testing.assert_close(found.inputs, alone)
        assert torch.equal(found.targets, rows.targets)
    assert (data.input_shape, data.num_classes, data.class_names) == ((16,), 2, ["0", "1"])


def test_the_network_is_gone_through_once_for_the_same_texts(place, tmp_path, monkeypatch):
    store, seen, features = ArtefactStore(tmp_path), [], text_features.features
    monkeypatch.setattr(
        text_features, "features", lambda network, rows: seen.append(len(rows)) or features(network, rows)
    )
    first = made(place, store=store)
    assert made(place, store=store).checksum() == first.checksum()
    assert seen == [40, 6]
    assert made(place, store=store, train_size=10).altered
    made(place, "cls", store)  # the control: other features
    assert seen == [40, 6, 10, 6, 40, 6]


def test_texts_that_were_cut_are_said_and_recorded_whoever_made_the_features(place, tmp_path, capsys):
    store = ArtefactStore(tmp_path)
    for _ in range(2):  # made, and found in the store
        remarks._say_once.cache_clear()  # as in another process
        assert made(place, store=store, max_length=6).remarks == {"texts cut to 6 tokens": {"train": 30, "test": 4}}
        assert capsys.readouterr().err == "texts: texts cut to 6 tokens: 4 test, 30 train\n"
    assert made(place, store=store).remarks == {}  # the control


def test_other_weights_are_other_features(place, tmp_path):
    store, other = ArtefactStore(tmp_path), tmp_path / "other"
    save_tiny_bert(other / "bert", ["other", "good", "bad"])
    for name in ("train.tsv", "test.tsv"):
        (other / name).write_bytes((place / name).read_bytes())
    assert made(place, store=store).checksum() != made(other, store=store).checksum()


@pytest.mark.parametrize(
    ("option", "says"),
    [("data.pooling=max", "data.pooling=max"), ("data.texts.train_sizes=3", "data.texts.train_size")],
)
def test_mistakes_are_found_before_anything_is_read(option, says):
    line = ["data=trec_features", "model=mlp", "scenario=none", "method=erm"]
    assert not validate(composed(line))
    (problem,) = validate(composed([*line, f"+{option}" if "sizes" in option else option]))
    assert says in str(problem)
