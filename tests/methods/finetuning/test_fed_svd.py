"""FedSVD and its kin: the server's factors, a round by hand, what is trained, variants, going on after a kill."""

import functools

import pytest
import torch
from pytorch_lightning import Callback

from fisherexp import adapters
from fisherexp.config.explain import composed
from fisherexp.methods.finetuning.fed_svd import orthonormal_factors
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

# Batches of all samples of a client, so that nothing is drawn but the division and who takes part.
WHOLE = ["data.batch_size=1000", "method.clients=3", "method.taking_part=2", "method.local_steps=3"]
PLAIN = ["method.clip=null", "method.noise_multiplier=0.0"]
SHAPES = [(16, 64), (12, 16)]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fed_svd")

    def make(*options: str, callbacks=None) -> Workbench:
        lines = ["method=fed_svd", "model.hidden=[16,12]", "training.epochs=3", "data.train_size=150", *WHOLE]
        lines += ["method.finetune.epochs=2", "progress=off", "threads=1", f"output_dir={folder}"]
        return Workbench(composed([*lines, *options]), callbacks=callbacks)

    return make


@pytest.fixture(scope="module")
def trained(bench_of, tmp_path_factory):
    """A method at the end of its fit; made once for all tests."""

    @functools.cache
    def fit(*options: str):
        return finished(bench_of(*options), tmp_path_factory.mktemp("run"), own=True)[0]

    return fit


def weights(method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.model.parameters()])


@pytest.mark.parametrize("shape", [(7, 3, 5), (2, 3, 5), (3, 3, 3)])
def test_the_servers_factors_have_the_same_product_and_orthonormal_rows(shape):
    torch.manual_seed(0)
    m, r, n = shape
    up, down = torch.randn(m, r, dtype=torch.float64), torch.randn(r, n, dtype=torch.float64)
    new_up, new_down = orthonormal_factors(up, down)
    assert (new_up.shape, new_down.shape) == (up.shape, down.shape)
    torch.testing.assert_close(new_up @ new_down, up @ down)
    torch.testing.assert_close(new_down @ new_down.T, torch.eye(r, dtype=torch.float64))
    values = torch.nn.functional.pad(torch.linalg.svdvals(up @ down), (0, r))[:r]
    torch.testing.assert_close(new_up.T @ new_up, torch.diag(values.square()), atol=1e-12, rtol=1e-9)
    zero_up, zero_down = orthonormal_factors(0 * up, down)  # before anyone has learned
    assert not zero_up.any()
    torch.testing.assert_close(zero_down @ zero_down.T, torch.eye(r, dtype=torch.float64))


def test_more_rows_than_can_be_orthonormal_are_refused():
    with pytest.raises(ValueError, match="rank=3 is above 2"):
        orthonormal_factors(torch.zeros(4, 3), torch.zeros(3, 2))


@pytest.mark.parametrize("variant", ["ffa_lora", "fedavg_lora", "fed_svd"])
def test_two_rounds_are_federated_averaging_by_hand(variant, bench_of, trained):
    """Plain gradient steps of each client from the server's values, and the mean weighted by samples."""
    options = (f"method.variant={variant}", *PLAIN)
    bench = bench_of(*options)
    method, end = bench.method("method"), trained(*options)
    method.model.load_state_dict(bench.reference("source").tensors)
    bench.announce(method)
    local = method.batches(bench.setting)
    samples = bench.setting.parts["train"]
    server = {name: p.detach().clone() for name, p in method._trained().items()}
    for number in range(2):
        sent, sizes = [], []
        for client in local.drawn(number):
            values = method._trained()
            for name, p in values.items():
                p.data.copy_(server[name])
            part = samples.subset(local.parts[client])
            for _ in range(3):
                loss = torch.nn.functional.cross_entropy(method.model(part.inputs), part.targets)
                for p, gradient in zip(values.values(), torch.autograd.grad(loss, [*values.values()]), strict=True):
                    p.data -= 0.5 * gradient
            sent.append({name: p.detach().clone() for name, p in values.items()})
            sizes.append(len(part))
        server = {n: sum(k * each[n] for k, each in zip(sizes, sent, strict=True)) / sum(sizes) for n in server}
        for name, p in method._trained().items():
            p.data.copy_(server[name])
        if variant == "fed_svd":
            for adapter in adapters.adapters(method.model):
                adapter.up.data, adapter.down.data = orthonormal_factors(adapter.up.data, adapter.down.data)
            server = {name: p.detach().clone() for name, p in method._trained().items()}
    adapters.merge(method.model)
    torch.testing.assert_close(weights(end), weights(method), rtol=1e-4, atol=1e-5)
    assert (
        not torch.allclose(weights(end), weights(trained("method.variant=ffa_lora", *PLAIN))) or variant == "ffa_lora"
    )


def test_a_clip_that_is_never_reached_changes_nothing(trained):
    far = trained("method.clip=1e6", "method.noise_multiplier=0.0")
    torch.testing.assert_close(weights(far), weights(trained(*PLAIN)), rtol=1e-4, atol=1e-5)
    near = trained("method.clip=0.1", "method.noise_multiplier=0.0")
    assert not torch.allclose(weights(near), weights(far), rtol=1e-4, atol=1e-5)  # the control


def test_the_svd_shows_from_the_second_round_on(trained):
    """The product is the same after it; without it in the first round, frozen random rows train alike."""
    one = [weights(trained(f"method.variant={v}", "method.finetune.epochs=1", *PLAIN)) for v in ("fed_svd", "ffa_lora")]
    torch.testing.assert_close(*one, rtol=1e-5, atol=1e-6)
    two = [weights(trained(f"method.variant={v}", *PLAIN)) for v in ("fed_svd", "ffa_lora")]
    assert not torch.allclose(*two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("variant", "sides"), [("fed_svd", 1), ("ffa_lora", 1), ("fedavg_lora", 2)])
def test_how_much_is_trained_and_what_is_said_of_it(variant, sides, trained):
    method = trained(f"method.variant={variant}", *PLAIN)
    counted = sum(8 * (m + (n if sides == 2 else 0)) for m, n in SHAPES)
    assert method.outcome["metrics"]["trained_numbers"] == counted
    assert sum(method.outcome["client_samples"]) == 150
    assert method.outcome["privacy"] == {"noise_multiplier": 0.0, "delta": 1e-5}
    for name, tensor in method.adapter_state.items():
        if variant == "fed_svd" and name.endswith("down"):
            torch.testing.assert_close(tensor @ tensor.T, torch.eye(8), atol=1e-5, rtol=0)


class Stopped(Exception):
    pass


class StopAfter(Callback):
    def __init__(self, batches):
        self.left = batches

    def on_train_batch_end(self, *args):
        self.left -= 1
        if not self.left:
            raise Stopped


@pytest.mark.parametrize("steps", [4, 7])  # within the second client, within the second round
def test_stopped_within_a_round_it_ends_bit_equal(steps, bench_of, trained, tmp_path):
    options = ("data.batch_size=20", "method.finetune.momentum=0.9", "checkpoint_every=0")
    with pytest.raises(Stopped):
        finished(bench_of(*options, callbacks=[StopAfter(steps)]), tmp_path, own=True)
    assert (tmp_path / "last.ckpt").is_file()
    resumed, _ = finished(bench_of(*options), tmp_path)
    assert torch.equal(weights(resumed), weights(trained(*options)))
    assert resumed.outcome == trained(*options).outcome


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["method.taking_part=4"], "taking_part=4 of clients=3; nearest valid: 3"),
        (["method.epsilon=3.0"], "noise_multiplier=1.0, epsilon=3.0: give one of the two"),
        (["method.noise_multiplier=null"], "noise_multiplier=None, epsilon=None: give one of the two"),
        (["method.clip=null"], "clip=null bounds no gradient"),
    ],
)
def test_what_does_not_go_together_is_one_line(options, message, bench_of):
    with pytest.raises(Exception, match=message):
        bench_of(*options).method("method")


def test_gradients_of_several_batches_are_not_summed(bench_of, tmp_path):
    with pytest.raises(ValueError, match="accumulate_grad_batches=2: the noise of a step is for one batch"):
        finished(bench_of("trainer.accumulate_grad_batches=2"), tmp_path, own=True)


def test_an_empty_batch_is_a_step_of_noise(bench_of, trained):
    """With batches of one sample on average some are empty."""
    options = ("data.batch_size=1",)
    local = bench_of(*options).method("method").batches(bench_of(*options).setting)
    assert 0 in {local.local_batch(step).size for step in range(12)}
    assert weights(trained(*options)).isfinite().all()
    assert weights(trained(*options, *PLAIN)).isfinite().all()


def test_an_epsilon_is_turned_into_the_noise_of_the_client_that_is_seen_most(bench_of, monkeypatch):
    asked = []
    place = "fisherexp.methods.finetuning.fed_svd.noise_of_epsilon"
    monkeypatch.setattr(place, lambda *given: asked.append(given) or 1.25)
    bench = bench_of("method.epsilon=3.0", "method.noise_multiplier=null", "data.batch_size=20")
    method = bench.method("method")
    local = method.batches(bench.setting)
    both = [local.drawn(number) for number in range(2)]
    smallest = min(len(local.parts[client]) for client in {*both[0], *both[1]})
    times = max(sum(client in drawn for drawn in both) for client in range(3))
    assert asked == [(3.0, 1e-5, min(1.0, 20 / smallest), 3 * times)]
    assert method.outcome["privacy"] == {"noise_multiplier": 1.25, "delta": 1e-5, "epsilon": 3.0}
