"""A method in a package of its own: one Python file and one YAML file, and nothing of ours is edited."""

import os
import subprocess

import forked
import pytest

METHOD = '''
"""Multiplies every weight of the head by a factor."""
import torch
from fisherexp.config.types import Probability
from fisherexp.methods.method import ModelMethod


class Shrink(ModelMethod):
    paper = "nobody, nowhere"
    start = "source"
    steps_itself = True

    def __init__(self, model, factor: Probability):
        super().__init__(model)
        self.factor = factor

    def training_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return None

    def on_train_end(self):
        with torch.no_grad():
            self.model.head.weight.mul_(self.factor)
'''
YAML = """# multiply the head's weights by a factor
_target_: outside_methods.shrink.Shrink
factor: 0.5
"""
SEARCH = "pkg://outside_methods.conf"


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Runs a command with the outside package importable."""
    root = tmp_path_factory.mktemp("outside")
    package = root / "outside_methods"
    (package / "conf" / "method").mkdir(parents=True)
    for folder in (package, package / "conf"):
        (folder / "__init__.py").touch()
    (package / "shrink.py").write_text(METHOD)
    (package / "conf" / "method" / "shrink.yaml").write_text(YAML)

    def run(*command: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "200"}  # one line an entry
        return forked.run(*command, env=environment)

    return run


def test_runs(outside, tmp_path):
    small = ["model.width=4", "training.epochs=1", f"output_dir={tmp_path}"]
    done = outside("run.py", f"hydra.searchpath=[{SEARCH}]", "method=shrink", "scenario=none", *small)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("shrink/digits/*/run.json"))


def test_is_listed(outside):
    done = outside("-m", "fisherexp", "list", "--search-path", SEARCH)
    assert "shrink" in done.stdout
    assert "multiply the head's weights" in " ".join(done.stdout.split())


def test_is_checked_like_ours(outside):
    refused = outside("run.py", f"hydra.searchpath=[{SEARCH}]", "method=shrink", "method.factor=2")
    assert refused.returncode == 2
    assert "nearest valid: method.factor=1" in refused.stderr


def test_keeps_the_contract(outside):
    done = outside("-m", "fisherexp", "contract", "shrink", "--search-path", SEARCH)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "repeats_and_resumes_exactly" in done.stdout
