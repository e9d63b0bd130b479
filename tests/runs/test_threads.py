"""The choice of threads is a property of the arithmetic, not of chance."""

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.runs import threads
from fisherexp.runs.described import Described
from fisherexp.runs.threads import choose_threads, forward_flops


def test_flops_of_a_linear_layer():
    assert forward_flops(nn.Linear(30, 20), torch.zeros(7, 30)) == 2 * 7 * 30 * 20


@pytest.mark.parametrize(("width", "cores", "expected"), [(10, 8, 1), (4000, 8, 8), (4000, 1, 1)])
def test_small_steps_get_one_thread(monkeypatch, width, cores, expected):
    monkeypatch.setattr(threads, "available_cores", lambda: cores)
    chosen, why = choose_threads(nn.Linear(width, width), torch.zeros(64, width))
    assert chosen == expected
    assert "threads=N" in why


def test_what_is_asked_for_is_taken_without_a_network(monkeypatch):
    """A network of billions of weights is no price for a number that is known."""
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    bench = Described(composed(["threads=3"]))
    monkeypatch.setattr(bench, "network", None)
    bench.data  # noqa: B018 - settles the threads
    assert bench.threads == 3
