"""Small-scale proof of how fast adapters start on text: a GPT of the characters of Python's manual, which is English,
fine-tuned on Python's sources."""

import functools
import sysconfig
from pathlib import Path

import pytest
from first_steps import first_loss

from fisherexp.config.explain import composed
from fisherexp.data.characters import ASCII
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)
MANUAL, SOURCES = ["pydoc_data/topics.py"], ["argparse.py", "doctest.py", "inspect.py"]


def written(file: Path, names: list[str]) -> Path:
    """The standard library's files of these names as one, without what is not ASCII."""
    library = Path(sysconfig.get_paths()["stdlib"])
    text = "".join((library / name).read_text(encoding="utf-8").replace("\\n", "\n") for name in names)
    file.write_text("".join(c for c in text if c in ASCII))
    return file


@pytest.fixture(scope="module")
def beginning(tmp_path_factory):
    """Nats a character in the mean of the first 30 steps, at 3e-3 and a scale of 1 for all."""
    folder = tmp_path_factory.mktemp("first_steps")
    target, source = written(folder / "sources.txt", SOURCES), written(folder / "manual.txt", MANUAL)
    given = [f"output_dir={folder}", "progress=off", "threads=1", f"data.path={target}", "data.train_size=960"]
    given += ["data@source.data=characters", "source.data.alphabet=ascii", f"source.data.path={source}"]
    given += ["method.finetune.epochs=2"]

    @functools.cache
    def run(name: str, seed: int) -> float:
        options = [f"method={name}", f"seed={seed}", "method.finetune.lr=3e-3", "method.finetune.schedule=constant"]
        bench = Workbench(composed(["experiment=finetuning_char_gpt", *given, *options]))
        return first_loss(bench, folder / name / str(seed), seed, steps=30)

    return run


@pytest.mark.parametrize("slower", ["lora", "soma"])
def test_pissa_starts_faster(beginning, slower):
    """C: 3.050 against 3.319 and 3.527."""
    for seed in SEEDS:
        assert beginning("pissa", seed) < beginning(slower, seed)
