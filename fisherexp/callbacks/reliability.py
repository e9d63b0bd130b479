"""Reliability diagram of the finished model: accuracy against confidence on the data it is evaluated on."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from fisherexp.figures import BLUE, GRAY, ORANGE, canvas, save_both
from fisherexp.metrics.calibration import CalibrationMetrics, calibration_errors
from fisherexp.ranks import over_ranks


class Reliability(Callback):
    """Leaves reliability.png and reliability.pdf in the run's folder, drawn from the sums of the run's own metrics.

    Raises ValueError where the scenario does not evaluate by calibration. Of several evaluated parts it draws the last,
    and nothing of a method whose outputs are no logits.
    """

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not isinstance(module.evaluation, CalibrationMetrics):
            raise ValueError("callbacks=reliability needs a scenario that evaluates by calibration: scenario=none")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        sums = over_ranks({"bins": module.evaluation.bins})["bins"][-1].cpu()
        if trainer.is_global_zero and not module.raw_outputs:
            draw(sums, module.evaluation.names[-1], Path(trainer.default_root_dir) / "reliability")


def draw(sums: Tensor, part: str, stem: Path) -> None:
    """Accuracy by bin with its gap to the confidence, and how many samples each bin holds; sums (bins, 3)."""
    count, confidence, hits = sums[sums[:, 0] > 0].unbind(1)
    confidence, accuracy = confidence / count, hits / count
    ece, mce = calibration_errors(sums)
    figure, (above, below) = canvas(2, 1, (4.2, 5.2))
    above.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1, label="perfect")
    above.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=3, alpha=0.7, label="gap")
    above.plot(confidence, accuracy, "o-", color=BLUE, markersize=4, label="model")
    above.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel=f"accuracy on {part}")
    above.set_title(f"ECE {ece:.3f}, MCE {mce:.3f}, n = {int(count.sum()):,}", fontsize=10)
    above.legend(frameon=False, loc="upper left")
    edges = [k / len(sums) for k in range(len(sums))]
    below.bar(edges, (sums[:, 0] / count.sum()).tolist(), width=1 / len(sums), align="edge", color=BLUE, edgecolor="w")
    below.set(xlim=(0, 1.02), xlabel="confidence", ylabel="share of samples")
    save_both(figure, stem)
