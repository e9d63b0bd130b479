"""What the runner asks of the callbacks of a run. Those of Lightning's own class are asked nothing."""

from typing import ClassVar

from pytorch_lightning import Callback

from fisherexp.scenarios.setting import Setting


class Watcher(Callback):
    """requires: what data and model must provide, as in Method.
    watches_fit: the training takes place in the run even if its result is known, to be watched.
    needs_gradients: the test loop must allow gradients.
    headings: of numbers it adds to the outcome's metrics, as in Evaluation.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    watches_fit: bool = False
    needs_gradients: bool = False
    headings: ClassVar[dict[str, str]] = {}

    def fit_begins(self, setting: Setting) -> None:
        """Called before fit with the data as the scenario cuts them, on the device of the loop."""

    def test_begins(self, setting: Setting) -> None:
        """Called before the test loop of the finished model, likewise."""
