"""Which runs a grid is: a product, and further ones for what is none."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.fisherexp.grid import runs

GRID = {
    "params": {"method": "sgd,adam", "seed": "range(2)"},
    "also": [{"method": "m_fac", "method.window": 16, "method.lr": 0.1}, {"method": "m_fac", "method.window": 64}],
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["seed=0"],
            [
                ["method=sgd", "seed=0"],
                ["method=adam", "seed=0"],
                ["method=m_fac", "seed=0", "method.window=16", "method.lr=0.1"],
                ["method=m_fac", "seed=0", "method.window=64"],
            ],
        ),
        (["method=galore", "seed=0"], [["method=galore", "seed=0"]]),
        (
            ["method.lr=1", "seed=0"],  # a grid that says a rate itself is not asked for
            [
                [f"method={name}", "seed=0", *window, "method.lr=1"]
                for name, window in (("sgd", []), ("adam", []), ("m_fac", ["method.window=64"]))
            ],
        ),
    ],
)
def test_further_products_are_left_out_where_the_command_line_sets_their_keys(arguments, expected):
    assert runs(GRID["params"], GRID["also"], arguments, OverridesParser.create()) == expected


def test_without_further_products_it_is_one():
    made = runs(GRID["params"], [], ["threads=1"], OverridesParser.create())
    assert [run[-1] for run in made] == ["threads=1"] * 4
