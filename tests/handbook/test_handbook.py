"""The catalogue says what files and classes declare, is current in docs/, and imports no method."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from fisherexp.catalogue import entries
from fisherexp.config.locations import conf_dir
from fisherexp.handbook import cards, page, text
from fisherexp.handbook.card import equation
from fisherexp.handbook.options import HIDDEN, options_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
CARDS = {card.name: card for found in cards().values() for card in found}


def leaves(node, prefix=""):
    """Dotted keys of a config file as YAML reads it."""
    for key, value in node.items():
        if key in HIDDEN:
            continue
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_method_has_a_card():
    assert set(CARDS) == {entry.name for entry in entries("method", [])}


def test_the_page_in_docs_is_current():
    command = "python -m fisherexp methods -o docs/methods.md"
    written = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert written == text(cards(), command), f"run {command}"


@pytest.mark.parametrize("name", sorted(CARDS))
def test_options_are_those_that_yaml_reads(name):
    file = conf_dir() / "method" / f"{name}.yaml"
    expected = dict(leaves(yaml.safe_load(file.read_text(encoding="utf-8"))))
    found = {option.key: yaml.safe_load(option.default) for option in options_of(file)}
    assert found == expected


def test_comments_stand_with_their_options(tmp_path):
    file = tmp_path / "made.yaml"
    file.write_text(
        "# what it does\n_target_: a.B\n# the first,\n# in two lines\nalpha: 1.0  # behind\nbeta: 2\n"
        "# of the node\npart:\n  _target_: a.C\n  # within\n  gamma: '#3'\n# nothing follows\n"
    )
    assert [(o.key, o.default, o.comment) for o in options_of(file)] == [
        ("alpha", "1.0", "the first, in two lines behind"),
        ("beta", "2", ""),
        ("part.gamma", "'#3'", "of the node within"),
    ]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("A.\n\n    x = 1\n    y = 2\n\nWords.", "x = 1\ny = 2"),
        ("A. Words\n\n    x = 1\n\nwords\n\n    y = 2", "x = 1\n\ny = 2"),
        ("A.\n\n- item\n  that goes on\n", ""),
        ("A.", ""),
    ],
)
def test_equations_are_the_indented_lines(header, expected):
    assert equation(header) == expected


def test_a_card_says_what_the_class_declares():
    ssd, eata = CARDS["ssd"], CARDS["eata"]
    assert ssd.arxiv == "2308.07707"
    assert "min(λ I_D[j] / I_f[j], 1)" in ssd.equation
    assert "a scenario of kind forgetting" in ssd.requires
    assert eata.published["imagenet/reset_each_shift"]["mean_error"] == (52.2,)


class Loaded(HTMLParser):
    """Ids of cards, and everything that a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.cards, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "article":
            self.cards.append(attrs["id"])
        if tag in ("link", "img", "script", "iframe") and (attrs.get("src") or attrs.get("href")):
            self.fetched.append(attrs)


def test_the_html_page_is_one_file():
    html, seen = page(cards()), Loaded()
    seen.feed(html)
    assert sorted(seen.cards) == sorted(CARDS)
    assert seen.fetched == []
    assert not re.search(r"@import|url\(|<!--[A-Z]+-->", html)


def test_no_method_is_imported(tmp_path):
    code = (
        "import sys; from fisherexp.cli import app\n"
        f"app(['methods', '-o', '{tmp_path / 'm.html'}'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('fisherexp.methods')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == []
    assert (tmp_path / "m.html").is_file()
