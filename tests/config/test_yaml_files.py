"""Files read by libyaml hold what PyYAML's own reader finds."""

import pytest
import yaml

from fisherexp.config.locations import conf_dir
from fisherexp.config.yaml_files import read_yaml


@pytest.mark.parametrize("name", ["run", "method/ssd", "method/lq_lora", "experiment/tta_digits", "scenario/domains"])
def test_a_config_file_is_read_as_by_safe_load(name):
    file = conf_dir() / f"{name}.yaml"
    assert read_yaml(file) == yaml.safe_load(file.read_text())


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: !!python/name:os.system"])
def test_what_is_no_yaml_is_refused_alike(text, tmp_path):
    (file := tmp_path / "a.yaml").write_text(text)
    for read in (read_yaml, lambda file: yaml.safe_load(file.read_text())):
        with pytest.raises(yaml.YAMLError):
            read(file)
