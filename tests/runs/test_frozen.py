"""A frozen config is the same run: same identity, same command line."""

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.frozen import freeze, thaw
from fisherexp.runs.identity import identity


@pytest.mark.parametrize(
    "choices",
    [[], ["method=eata", "scenario=continual"], ["experiment=domainbed_pacs", "draw=7", "logger=[csv,wandb]"]],
)
def test_identity_survives_freezing(tmp_path, choices):
    overrides = [*choices, f"output_dir={tmp_path}"]
    cfg = composed(overrides)
    folder = freeze(cfg, overrides)
    thawed, found = thaw(folder)
    assert found == overrides
    assert identity(thawed) == identity(cfg) == folder.name


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        thaw(tmp_path)
