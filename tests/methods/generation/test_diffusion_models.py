"""The methods as a run has them: options that matter, the average that is kept, the schedule that goes with weights."""

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.methods.generation.shortest_path_diffusion import data_spectrum, shortest_path
from fisherexp.problems.generative import scaled
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench
from fisherexp.seeds import generator

SMALL = ["model.width=8", "training.epochs=1", "data.train_size=128", "method.steps=4", "progress=off", "threads=1"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """(method, samples) after a fit of two updates on digits; each choice of options once."""
    kept = {}

    def fitted(*overrides):
        if overrides not in kept:
            folder = tmp_path_factory.mktemp("run")
            bench = Workbench(composed([*SMALL, *overrides, f"output_dir={folder}"]))
            method, _ = finished(bench, folder)
            kept[overrides] = method, method.sample(3, generator("samples"))
        return kept[overrides]

    return fitted


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(
            ("ddpm", option)
            for option in ("schedule=linear", "steps=5", "average=0.5", "clip=false", "deterministic=true")
        ),
        *(("shortest_path_diffusion", option) for option in ("grid=paper", "floor=0.1", "steps=5", "average=0.5")),
        *(("shortest_path_diffusion", option) for option in ("clip=true", "deterministic=true")),
    ],
)
def test_every_option_changes_the_samples(fitted, name, change):
    first, other = fitted(f"method={name}")[1], fitted(f"method={name}", f"method.{change}")[1]
    assert first.shape == other.shape == (3, 1, 8, 8)
    assert first.isfinite().all()
    assert not torch.equal(first, other)


def test_the_average_is_kept_and_is_that_of_the_weights_after_each_update():
    torch.manual_seed(0)
    bench = Workbench(composed([*SMALL, "method=ddpm", "method.average=0.5"]))
    method = bench.method("method")
    weight = method.model.enter.weight
    seen = []
    for value in (1.0, 2.0, 4.0):
        torch.nn.init.constant_(weight, value)
        method.averaged.update_parameters(method.model)
        seen.append(method.averaged.module.enter.weight.unique().item())
    assert seen == [1.0, 1.5, 2.75]
    method.on_fit_end()
    assert method.model.enter.weight.unique().item() == 2.75


def test_the_schedule_of_the_shortest_path_is_that_of_the_training_images_and_goes_with_the_weights(fitted):
    method, _ = fitted("method=shortest_path_diffusion")
    bench = Workbench(composed([*SMALL, "method=shortest_path_diffusion"]))
    images = scaled(bench.setting.parts["train"].inputs)
    expected = shortest_path(data_spectrum(images, 1e-3), 4)
    torch.testing.assert_close(method.schedule.alpha_bar, expected.alpha_bar, rtol=0, atol=0)
    again = bench.method("method")
    again.model.load_state_dict(method.model.state_dict())
    assert torch.equal(again.sample(3, generator("samples")), method.sample(3, generator("samples")))


def test_samples_come_in_any_number_of_pieces(fitted, monkeypatch):
    from fisherexp.methods.generation import model

    monkeypatch.setattr(model, "DRAWN_AT_ONCE", 2)
    assert fitted("method=ddpm")[0].sample(5, generator("samples")).shape == (5, 1, 8, 8)
