"""Relearn time against a training loop written out."""

import pytest
import torch
from torch.nn import functional as F

from fisherexp.audits import relearn
from fisherexp.audits.relearn import Relearn, probe
from fisherexp.config.explain import composed
from fisherexp.methods.recipe import Recipe
from fisherexp.runs.workbench import Workbench

CAP = 12


@pytest.fixture
def bench(tmp_path):
    options = ["model=mlp", "data.batch_size=32", "scenario.classes=[3]", "progress=off"]
    return Workbench(composed([*options, f"output_dir={tmp_path}"]))


def relearned(bench, folder, target: float) -> Relearn:
    training = Recipe(epochs=2, lr=0.02, momentum=0.5, weight_decay=0.01, schedule="cosine", warmup_epochs=1)
    found = Relearn(bench.classifier("relearn"), training, target, CAP)
    bench.fit(found, folder, "relearning")
    return found


def losses_by_hand(bench, folder) -> list[float]:
    """Mean loss of the forget set after each of CAP steps of SGD at a fixed learning rate."""
    model, forget = bench.classifier("relearn"), bench.setting.parts["forget"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.5, weight_decay=0.01)
    loader, found = bench.setting.loader("forget", shuffle=True), []
    while len(found) < CAP:
        for batch in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(batch.inputs), batch.targets).backward()
            optimizer.step()
            found.append(F.cross_entropy(model(forget.inputs), forget.targets).item())
    return found[:CAP]


@pytest.mark.parametrize("steps", [1, 3, 4, 7, CAP])
def test_steps_are_those_of_plain_training(bench, tmp_path, steps):
    losses = losses_by_hand(bench, tmp_path)
    assert losses == sorted(losses, reverse=True)  # so that each loss is first reached at its own step
    assert relearned(bench, tmp_path / "fit", losses[steps - 1] + 1e-6).steps == steps


def test_it_gives_up_at_the_cap(bench, tmp_path):
    found = relearned(bench, tmp_path / "fit", -1.0)
    assert found.steps is None
    # No later than the cap: the weights are those of so many steps.
    assert found.probed_loss() == pytest.approx(losses_by_hand(bench, tmp_path)[-1], rel=1e-4)


def test_the_loss_is_looked_at_on_a_fixed_draw_of_limited_size(bench, monkeypatch):
    assert torch.equal(probe(bench.setting), torch.arange(len(bench.setting.parts["forget"])))
    monkeypatch.setattr(relearn, "PROBED", 20)
    chosen = probe(bench.setting)
    assert len(chosen.unique()) == 20
    assert torch.equal(chosen, probe(bench.setting))


def test_a_single_sample_is_refused_in_one_line(bench, tmp_path):
    setting = bench.setting
    setting.parts["forget"] = setting.parts["forget"].subset([0])
    with pytest.raises(ValueError, match="two forgotten samples at least"):
        relearned(bench, tmp_path / "fit", 0.0)
