"""Every link to a file of the project, from the README and the documentation, leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "fisherexp").rglob("README.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")
NAMED = re.compile(r"\bdocs/[\w/]+\.(?:md|ipynb|png)\b")


def lost(page: Path) -> list[str]:
    found = LINK.findall(page.read_text(encoding="utf-8"))
    return [link for link in found if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert lost(page) == []


def test_pages_named_in_code_and_configs_exist():
    files = [
        *ROOT.glob("conf/**/*.yaml"),
        *ROOT.glob("fisherexp/**/*.py"),
        *ROOT.glob("tests/**/*.py"),
        ROOT / "README.md",
    ]
    named = {name for file in files for name in NAMED.findall(file.read_text(encoding="utf-8"))}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_a_lost_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](b.md), [c](https://example.org), [d](#e), [here](page.md#part)")
    assert lost(page) == ["b.md"]
