"""Where a pretrained model is looked for, without the library that reads it."""

import sys

import pytest
import torch

from fisherexp.config.locations import located
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.models.transformer_files import whereabouts


def test_a_file_of_an_installed_package_is_found_without_importing_it():
    assert str(located("pkg://torch/torch/__init__.py", None)) == torch.__file__
    for nothing in ("pkg://torch/torch/no_such_file.py", "pkg://no-such-package/it", "pkg://"):
        assert located(nothing, None) is None


def test_a_folder_comes_before_the_hub(tmp_path):
    place, options = whereabouts(str(tmp_path), None, None)
    assert (place, options) == (str(tmp_path), {"trust_remote_code": False, "local_files_only": True})
    place, options = whereabouts("owner/model", "1a2b3c", None)
    assert (place, options) == ("owner/model", {"trust_remote_code": False, "revision": "1a2b3c"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pkg://no-such-package/folder", "this is not installed: pip install no-such-package"),
        ("owner/model", "the version must be named: model.revision=<commit>, from https://huggingface.co/owner/model"),
    ],
)
def test_names_that_stand_for_nothing_here(name, said):
    with pytest.raises(ValueError, match=said):
        whereabouts(name, None, None)


def test_what_is_missing_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'fisherexp\[text\]'") as error:
        Tokenizer("owner/model").vocabulary  # noqa: B018 - it is read here
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="these data need a model with a tokenizer"):
        Tokenizer(None).vocabulary  # noqa: B018
