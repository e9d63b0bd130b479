"""Config files are parsed once as long as they stay as they are, and compose to what Hydra alone composes."""

import pytest
import yaml
from hydra._internal import config_loader_impl
from hydra._internal.config_repository import ConfigRepository
from omegaconf import OmegaConf

from fisherexp.config.explain import by_hydra
from fisherexp.config.parsed_once import ParsedOnce


@pytest.fixture
def parsed(monkeypatch):
    """The texts that are parsed from here on."""
    texts, load = [], yaml.load

    def counted(stream, *args, **options):
        texts.append(stream)
        return load(stream, *args, **options)

    monkeypatch.setattr(yaml, "load", counted)
    return texts


def by_hydra_alone(monkeypatch, lines):
    monkeypatch.setattr(config_loader_impl, "ConfigRepository", ConfigRepository)
    found = by_hydra(lines, with_hydra=True)
    monkeypatch.setattr(config_loader_impl, "ConfigRepository", ParsedOnce)
    return found


def test_a_second_composition_parses_nothing(parsed, monkeypatch):
    by_hydra(["method=eata"])
    parsed.clear()
    by_hydra(["method=eata"])
    assert not parsed
    by_hydra_alone(monkeypatch, ["method=eata"])  # the control
    assert parsed


@pytest.mark.parametrize(
    "lines", [[], ["method=eata"], ["experiment=ssd_digits", "method.alpha=3"], ["hydra/launcher=joblib", "model=mlp"]]
)
def test_composes_as_hydra_does(lines, monkeypatch):
    alone = by_hydra_alone(monkeypatch, lines)
    for _ in range(2):  # parsed, and found
        found = by_hydra(lines, with_hydra=True)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(alone)
        found.method = None  # changes what was composed, not what was parsed


def test_a_value_of_one_composition_is_in_no_other():
    """Also where values are set by Hydra itself, in the nodes it has put together."""
    before = by_hydra(["method=eata"]).training.lr
    assert by_hydra(["method=eata", "training.lr=0.5"]).training.lr == 0.5 != before
    assert by_hydra(["method=eata"]).training.lr == before


def test_a_file_that_changed_is_parsed_again(tmp_path):
    file = tmp_path / "model" / "own.yaml"
    file.parent.mkdir()
    lines = [f"hydra.searchpath=[file://{tmp_path}]", "model=own"]
    for width in (3, 12):
        file.write_text(f"width: {width}\n")
        assert by_hydra(lines).model.width == width
    file.unlink()
    with pytest.raises(Exception, match="own"):
        by_hydra(lines)
