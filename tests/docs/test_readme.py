"""The README's own method, model and data are what a newcomer copies: they compose, load, and fit each other."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from fisherexp.config.explain import explain

README = Path(__file__).resolve().parents[2] / "README.md"
NAMED = re.compile(r"`(my_package/[\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL)
SEARCH = "hydra.searchpath=[pkg://my_package.conf]"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The README's files as it names them, in a package that can be imported for the time of a test."""
    files = dict(NAMED.findall(README.read_text(encoding="utf-8")))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield files
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_every_file_it_speaks_of_is_there(package):
    kinds = {"method/shrink", "model/net", "data/squares"}
    assert {*package} == {f"my_package/{kind.partition('/')[2]}.py" for kind in kinds} | {
        f"my_package/conf/{kind}.yaml" for kind in kinds
    }


def test_its_line_composes_and_a_wrong_one_does_not(package):
    (line,) = re.findall(r"^fisherexp run ('hydra.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    overrides = line.replace("'", "").split()
    assert overrides[0] == SEARCH
    assert explain(overrides) == []
    assert "factor" in str(explain([*overrides, "method.factor=2"]))


def test_the_model_takes_the_data_and_the_method_the_model(package):
    net, squares, shrink = (importlib.import_module(f"my_package.{name}") for name in ("net", "squares", "shrink"))
    data = squares.Squares()
    data.load()
    model = net.Net(width=4, input_shape=data.input_shape)
    assert model(data.train.inputs[:5].float()).shape == (5, model.num_features)
    model.head = torch.nn.Linear(4, 2)
    before = model.head.weight.clone()
    shrink.Shrink(model, factor=0.5).on_train_end()
    assert torch.equal(model.head.weight, before / 2)
