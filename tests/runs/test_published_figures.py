"""Published figures stand beside runs of the published protocol, and beside no others."""

import pytest

from fisherexp.config.explain import composed
from fisherexp.data.colored import ColoredMNIST
from fisherexp.runs import described, workbench

FIGURES = {"target_accuracy": (65.6, 1.8)}


@pytest.mark.parametrize("published", [{"digits": FIGURES}, {"digits/continual": FIGURES}])
@pytest.mark.parametrize(
    ("option", "stands"),
    [
        ("data.batch_size=32", True),
        ("data.train_size=100", False),
        ("scenario.images=10", False),
        ("scenario.severity=3", False),
        ("scenario.corruptions=[fog]", False),
    ],
)
def test_figures_are_shown_only_where_nothing_was_left_out(monkeypatch, tmp_path, published, option, stands):
    monkeypatch.setattr(described, "attribute", lambda cfg, node, name, default: published)
    cfg = composed(["method=tent", "data=digits", "scenario=continual", f"output_dir={tmp_path}", option])
    assert workbench.Workbench(cfg).published() == (FIGURES if stands else {})


@pytest.mark.parametrize(
    ("options", "altered"),
    [
        ({}, False),
        ({"root": "elsewhere"}, False),
        ({"train_images": 10_000}, True),
        ({"test_images": 4_000}, True),
        ({"label_flip": 0.0}, True),
        ({"imbalance": "official"}, True),
        ({"train_size": 100}, True),
    ],
)
def test_colored_mnist_is_the_published_one_only_in_full(options, altered):
    assert ColoredMNIST(**options).altered is altered
