"""The API pages name everything that the rooms usable alone offer."""

import importlib
import re
from pathlib import Path

import pytest

API = Path(__file__).resolve().parents[2] / "docs" / "api"


@pytest.mark.parametrize("room", ["curvature", "adapters", "quantization", "special"])
def test_every_name_of_a_room_is_on_its_page(room):
    module = importlib.import_module(f"fisherexp.{room}")
    text = (API / f"{room}.md").read_text(encoding="utf-8")
    named = {target.rpartition(".")[2] for target in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    offered = {n for n, v in vars(module).items() if getattr(v, "__module__", "").startswith(module.__name__)}
    assert offered <= named, offered - named


def test_every_file_of_metrics_is_on_its_page():
    text = (API / "metrics.md").read_text(encoding="utf-8")
    files = Path(importlib.import_module("fisherexp.metrics").__file__).parent.glob("[!_]*.py")
    assert [file.stem for file in files if f"::: fisherexp.metrics.{file.stem}\n" not in text + "\n"] == []
