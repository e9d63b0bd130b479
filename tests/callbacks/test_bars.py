"""Which bar is drawn where, and what it says."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from fisherexp.callbacks.bars import TerminalBar, in_notebook, speed
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


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("name", ["SSD", "oracle 3 of seed 2: training oracle of the other data"])
@pytest.mark.parametrize(("steps", "words"), [(950, "epoch 17/19  loss 0.0312"), (None, "marginal error 7.94e-08")])
def test_on_a_terminal_it_is_one_line_with_its_words(monkeypatch, capsys, columns, name, steps, words):
    monkeypatch.setenv("COLUMNS", str(columns))
    bar = TerminalBar(name, steps, 0)
    bar.show(37, words)
    bar.stop()
    lines = [line.rstrip() for line in capsys.readouterr().err.splitlines()]
    assert all(len(line) <= columns for line in lines)
    assert any(words in line and "37/" in line and "steps/s" in line for line in lines)  # none is wrapped


def test_words_are_asked_for_only_when_they_are_shown(kernel, monkeypatch):
    asked = []
    meter = Meter("training")
    meter.begin(100)
    for step in range(1, 101):
        meter.advance(step, lambda step=step: asked.append(step) or f"loss {step}")
    meter.finish()
    assert "loss 100" in kernel.outputs[0][-1]
    assert len(asked) < 100  # to read a loss makes a GPU wait


@pytest.mark.parametrize(
    ("steps", "seconds", "said"), [(9, 0.0, ""), (87, 2.0, "43.5 steps/s"), (8740, 2.0, "4,370 steps/s")]
)
def test_speed(steps, seconds, said):
    assert speed(steps, seconds) == said
