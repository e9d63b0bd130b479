"""Self-tuning: ranges, layers that answer for each sample, which step moves what, and where the rates end."""

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.methods.training.best_response import BestResponse, dropout, respond, settle
from fisherexp.methods.training.hyperparameters import RANGES, Hyperparameters, project, unproject
from fisherexp.methods.training.self_tuning import SelfTuning
from fisherexp.methods.training.varied_images import cut_out, with_brightness, with_contrast
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

START = {"input_dropout": 0.1, "hidden_dropout": 0.4}


@pytest.mark.parametrize("name", RANGES)
def test_values_come_back_from_their_place_and_stay_in_their_range(name):
    assert project(unproject(0.3, name), name).item() == pytest.approx(0.3, rel=1e-5)
    assert project(unproject(0.0, name), name).item() < 0.007
    if RANGES[name] is None:
        assert project(unproject(1e-4, name), name).item() == pytest.approx(1e-4, rel=1e-3)
    far = project(torch.tensor([-100.0, 100.0]), name)
    assert far[0] >= 0
    assert far[1] == (100.0 if RANGES[name] is None else RANGES[name])


def test_a_start_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"method\.hidden_dropout=0\.95: it must be in \[0, 0\.9\)"):
        unproject(0.95, "hidden_dropout")


def test_draws_are_one_for_each_sample_and_the_entropy_is_a_gaussians():
    torch.manual_seed(0)
    hyper = Hyperparameters(START, 0.5)
    torch.testing.assert_close(hyper.scale, torch.full((2,), 0.5))
    expected = torch.distributions.Normal(hyper.eta, hyper.scale).entropy().sum()
    torch.testing.assert_close(hyper.entropy(), expected)
    hyper.draw(20_000)
    torch.testing.assert_close(hyper.drawn.std(0), hyper.scale, rtol=0.03, atol=0)
    assert hyper.value("hidden_dropout").shape == (20_000,)
    assert not hyper.value("hidden_dropout").requires_grad
    assert hyper.value("decay") is None
    hyper.draw(3, perturbed=False)
    torch.testing.assert_close(hyper.value("input_dropout"), torch.full((3,), 0.1))


def network(**options):
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 3, 3, **options)
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).eval()


INPUTS = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def answering():
    hyper, model = Hyperparameters(START, 0.5), network()
    respond(model, hyper)
    for layer in model:
        if isinstance(layer, BestResponse):
            nn.init.normal_(layer.gates.weight)
            nn.init.constant_(layer.scale, 1.3)
    return hyper, model.eval()


@pytest.mark.parametrize("bias", [True, False])
def test_where_nothing_is_felt_it_is_the_plain_network(bias):
    plain, model = network(bias=bias), network(bias=bias)
    hyper = Hyperparameters(START, 0.5)
    respond(model, hyper)
    model.eval()
    assert not torch.allclose(model(INPUTS), plain(INPUTS))  # the control
    hyper.felt = False
    torch.testing.assert_close(model(INPUTS), plain(INPUTS))


def test_each_sample_has_weights_of_its_own(answering):
    hyper, model = answering
    hyper.draw(5)
    together, drawn = model(INPUTS), hyper.drawn
    for number in range(5):
        hyper.drawn = drawn[number : number + 1]
        torch.testing.assert_close(model(INPUTS[number : number + 1]), together[number : number + 1])
    hyper.drawn = drawn[:1].expand(5, -1)
    assert not torch.allclose(model(INPUTS), together)  # the control: one for all


def test_it_settles_to_an_ordinary_network_of_the_same_outputs(answering):
    _, model = answering
    before = model(INPUTS)
    settle(model)
    assert set(model.state_dict()) == set(network().state_dict())
    torch.testing.assert_close(model(INPUTS), before)


def test_dropout_has_a_rate_for_each_sample_and_keeps_the_mean():
    torch.manual_seed(0)
    rates = torch.tensor([0.0, 0.2, 0.7])
    found = dropout(torch.ones(3, 100_000), rates)
    torch.testing.assert_close((found == 0).float().mean(1), rates, atol=0.01, rtol=0)
    torch.testing.assert_close(found.mean(1), torch.ones(3), atol=0.02, rtol=0)


def test_images_vary_as_strongly_as_they_are_told():
    torch.manual_seed(0)
    images = torch.full((2000, 1, 8, 8), 0.4)
    images[:, :, :4] = 0.6
    none, half = torch.zeros(2000), torch.full((2000,), 0.5)
    for change in (with_brightness, with_contrast, cut_out):
        torch.testing.assert_close(change(images, none), images)
    factors = with_brightness(images, half)[:, 0, 7, 7] / 0.4
    assert factors.aminmax() == (pytest.approx(0.5, abs=0.01), pytest.approx(1.5, abs=0.01))
    torch.testing.assert_close(with_contrast(images, half).mean((1, 2, 3)), images.mean((1, 2, 3)))
    holes = (cut_out(images, torch.full((2000,), 0.49)) == 0).flatten(1).sum(1)  # 3.92 pixels: 3
    assert holes.max() == 9
    assert holes.min() == 4  # at a corner


@pytest.fixture(scope="module")
def fitting(tmp_path_factory):
    """A method in the middle of its fit, with optimizers that were made for it."""
    folder = tmp_path_factory.mktemp("self_tuning")
    given = [
        "method=self_tuning",
        "model.hidden=[8]",
        "data.train_size=60",
        "method.brightness=0.1",
        "method.decay=0.1",
    ]
    bench = Workbench(composed([*given, "training.epochs=1", "progress=off", f"output_dir={folder}"]))
    method: SelfTuning = bench.method("method")
    method.setup("fit")
    method.batches(bench.setting)
    method.hyper_lr = 0.1
    optimizers, (schedule,) = method.configure_optimizers()
    method.optimizers, method.lr_schedulers = lambda: optimizers, lambda: schedule["scheduler"]
    method.manual_backward = lambda loss: loss.backward()
    method._current_fx_name = "training_step"
    return method, next(iter(bench.setting.loader("train")))


def moved(method, step) -> set[str]:
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    step()
    names = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    return {"hyper" if "hyper" in name else "network" for name in names}


@pytest.mark.parametrize(("step", "expected"), [("_train", {"network"}), ("_move", {"hyper"})])
def test_a_step_moves_the_network_or_the_hyperparameters(step, expected, fitting):
    method, batch = fitting
    method.model.train()
    for optimizer in method.optimizers():
        optimizer.zero_grad()
    assert moved(method, lambda: getattr(method, step)(batch)) == expected
    assert method.model.training


def test_samples_that_are_held_out_train_nothing(fitting):
    method, _ = fitting
    with pytest.raises(ValueError, match=r"method\.validation=0\.0: of 60 samples"):
        bench_parts(method, 0.0)
    loader = bench_parts(method, 0.2)
    kinds = [(bool(batch.tags["held_out"][0]), batch.size) for batch in loader]
    assert sum(size for held_out, size in kinds if not held_out) == 48
    assert {held_out for held_out, _ in kinds} == {True, False}
    assert sum(batch.size for batch in method.held_out) == 12


def bench_parts(method, share):
    bench = Workbench(composed(["method=self_tuning", "data.train_size=60", "data.batch_size=10", "progress=off"]))
    method.validation = share
    return method.batches(bench.setting)


def test_the_linear_best_response_has_the_direction_of_the_closed_form():
    """Ridge regression of one weight: w*(λ) = 2 / (1 + λ) falls with the decay, and so do the answers learned."""
    torch.manual_seed(0)
    inputs = torch.randn(64, 1)
    targets = 2 * inputs
    hyper = Hyperparameters({"decay": 0.5}, 0.5)
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    respond(model, hyper)
    weights = [p for name, p in model.named_parameters() if "hyper" not in name]
    optimizer = torch.optim.Adam(weights, 0.02)
    x = inputs.square().mean()

    for _ in range(250):
        hyper.draw(256)
        chosen = torch.randint(64, (256,))
        optimizer.zero_grad()
        outputs, decay = model(inputs[chosen]), hyper.value("decay")[:, None]
        of_one = outputs / inputs[chosen]  # the weight each sample sees
        loss = ((outputs - targets[chosen]).square() + decay * x * of_one.square()).mean()
        loss.backward()
        optimizer.step()

    def answer(eta):
        hyper.drawn = torch.tensor([[eta]])
        return model(torch.ones(1, 1)).item()

    middle = hyper.eta.item()
    for eta in (middle - 0.4, middle, middle + 0.4):
        exact = 2 / (1 + project(torch.tensor(eta), "decay").item())
        assert answer(eta) == pytest.approx(exact, abs=0.08)
    assert answer(middle - 0.4) > answer(middle) + 0.03 > answer(middle + 0.4) + 0.06


@pytest.mark.proof
def test_tuned_rates_come_together_and_are_better_than_where_they_started(tmp_path):
    """One seed, from 0.05 and 0.6. They end within 0.15 of each other; the loss on validation samples is below that of
    a network trained at the low rate they may start from."""

    def trained(tune, rate):
        given = ["experiment=self_tuning_digits", f"method.tune={tune}", f"method.input_dropout={rate}", "seed=0"]
        bench = Workbench(composed([*given, "progress=off", "threads=1", f"output_dir={tmp_path}"]))
        return finished(bench, tmp_path / f"{tune}{rate}")[0].outcome["metrics"]

    low, high = trained("true", 0.05), trained("true", 0.6)
    assert abs(low["input_dropout"] - high["input_dropout"]) < 0.15
    assert max(low["validation_loss"], high["validation_loss"]) < 0.9 * trained("false", 0.05)["validation_loss"]
