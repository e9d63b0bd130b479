"""Which bar is drawn where, and what it says."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from fisherexp.callbacks.bars import in_notebook
from fisherexp.callbacks.meter import Meter


class Kernel:
    """What IPython offers a cell: outputs with handles, each of which can be replaced."""

    def __init__(self) -> None:
        self.outputs: list[list[str]] = []
        self.package, self.display = ModuleType("IPython"), ModuleType("IPython.display")
        self.package.get_ipython = lambda: SimpleNamespace(kernel=self)
        self.display.HTML = str
        self.display.display = self.show

    def show(self, content: str, display_id: bool) -> SimpleNamespace:
        states = [content]
        self.outputs.append(states)
        return SimpleNamespace(update=states.append)


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    monkeypatch.setitem(sys.modules, "IPython", kernel.package)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel.display)
    return kernel


def test_only_a_kernel_is_a_notebook(monkeypatch, kernel):
    assert in_notebook()
    kernel.package.get_ipython = lambda: SimpleNamespace()  # a terminal's IPython
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_in_a_notebook_a_phase_is_one_output_that_ends_full(kernel, monkeypatch, capsys):
    monkeypatch.setattr("fisherexp.callbacks.meter.REFRESH_SECONDS", 0.0)
    meter = Meter("training <source>")
    meter.begin(10)
    for step in range(1, 11):
        meter.advance(step)
    meter.finish()
    assert len(kernel.outputs) == 1
    [states] = kernel.outputs
    assert len(states) > 10
    assert 'value="0" max="10"' in states[0]
    assert 'value="10" max="10"' in states[-1]
    assert "training &lt;source&gt;: 10 of 10" in states[-1]
    assert "nowrap" in states[-1]
    assert capsys.readouterr().err == ""


def test_elsewhere_a_line_is_printed(capsys):
    meter = Meter("training source")
    meter.begin(10)
    meter.finish()
    assert capsys.readouterr().err.startswith("training source")
