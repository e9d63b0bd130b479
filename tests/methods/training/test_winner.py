"""Noise on the first weights of a SIREN: the centroid that sets it, what it changes, and what it is for."""

from dataclasses import replace

import pytest
import torch

from fisherexp.config.explain import composed
from fisherexp.data.tensors import TensorSet
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.siren import SirenFit
from fisherexp.methods.training.winner import Winner, add_noise, noise_scales, spectral_centroid
from fisherexp.methods.training.winner_classifier import WinnerClassifier
from fisherexp.models.siren import Siren
from fisherexp.problems.signal import BandSignal, DigitSheet, grid, psnr
from fisherexp.runs.workbench import Workbench

N, K = 256, 50
TONE = torch.sin(2 * torch.pi * K * torch.arange(N) / N)[:, None]


@pytest.mark.parametrize(
    ("signal", "official", "expected"),
    [
        (TONE, False, 2 * K / N),
        (TONE, True, 2 * K / N),
        (TONE + 0.7, False, 2 * K / N),
        (TONE + 0.7, True, 0.163),  # the mean counts as a frequency of zero
        (TONE.repeat(1, 3), False, 2 * K / N / 3),
        (TONE.repeat(1, 3), True, 2 * K / N / 9),
        (0 * TONE, False, 0.0),
        (TONE[None].repeat(N, 1, 1), False, K / N),  # the mean of 2K/N along one axis and nothing along the other
        (TONE[:, None].repeat(1, N, 1), False, K / N),
        (TONE[None].repeat(N, 1, 1), True, 2 * K / N),
        (TONE[:, None].repeat(1, N, 1), True, 0.0),  # rows are constant
    ],
)
def test_the_centroid_of_tones(signal, official, expected):
    assert spectral_centroid(signal, official) == pytest.approx(expected, abs=1e-3)


def test_white_noise_has_half_of_the_highest_frequency():
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    assert spectral_centroid(noise) == pytest.approx(0.5, abs=0.01)


def test_noise_scales_are_the_published_ones():
    sound, image = noise_scales(0.3, (4096,), "published"), noise_scales(0.3, (64, 64), "published")
    assert sound == pytest.approx((3500 * (1 - 2.718281828**-2.1), 0.9))
    assert image == pytest.approx((50 * (1 - 2.718281828**-1.5), 0.12))
    assert noise_scales(0.3, (4096,), "sampling") == pytest.approx((torch.pi * 2048 * 0.3, 0.9))
    assert noise_scales(0.0, (4096,), "published") == (0.0, 0.0)


def test_noise_of_its_deviation_goes_into_two_tensors():
    torch.manual_seed(0)
    network = Siren(100, 1, [200, 200, 4])
    before = {name: p.clone() for name, p in network.state_dict().items()}
    add_noise([layer.weight for layer in network.layers], (60.0, 3.0))
    added = {name: p - before[name] for name, p in network.state_dict().items()}
    assert [name for name, change in added.items() if change.any()] == ["layers.0.weight", "layers.1.weight"]
    assert added["layers.0.weight"].std().item() == pytest.approx(2.0, rel=0.02)
    assert added["layers.1.weight"].std().item() == pytest.approx(0.1, rel=0.02)


def begun(kind, problem, seed=0, **options):
    torch.manual_seed(seed)
    method = kind(**options)
    method.begin(problem, seed)
    return method


def test_silence_leaves_a_plain_siren():
    class Silence(BandSignal):
        def samples(self, seed):
            return 0 * super().samples(seed)

    silence, sound = Silence(n=64).load(0), BandSignal(n=64).load(0)
    weights = {
        name: begun(kind, problem, hidden=[6, 6]).network.layers[0].weight
        for name, kind, problem in (("plain", SirenFit, silence), ("silent", Winner, silence), ("loud", Winner, sound))
    }
    assert torch.equal(weights["silent"], weights["plain"])
    assert not torch.equal(weights["loud"], weights["plain"])


def test_a_siren_begins_in_its_limits_and_is_a_network_of_sines():
    torch.manual_seed(0)
    network = Siren(2, 1, [50, 50], first_omega=40.0, omega=30.0)
    first, second, last = (layer.weight.abs().max().item() for layer in network.layers)
    assert 0.45 < first <= 0.5
    assert 0.9 * (6 / 50) ** 0.5 / 30 < second <= (6 / 50) ** 0.5 / 30
    assert last <= (6 / 50) ** 0.5 / 30
    x = torch.randn(3, 2)
    inner = torch.sin(30 * network.layers[1](torch.sin(40 * network.layers[0](x))))
    torch.testing.assert_close(network(x), network.layers[2](inner))


def test_a_band_has_one_magnitude_inside_and_none_outside():
    signal = BandSignal(n=256, low=0.25, high=0.5).load(0).instance["signal"][:, 0]
    size = torch.fft.rfft(signal).abs()
    inside = (torch.arange(129) >= 32) & (torch.arange(129) <= 64)
    torch.testing.assert_close(size[inside], size[inside].mean().expand(33))
    assert size[~inside].max() < 1e-3 * size[inside].min()
    with pytest.raises(ValueError, match=r"data\.high=0.001: no frequency of 256 samples"):
        BandSignal(n=256, low=0.0, high=0.001).load(0)


def test_points_that_are_held_out_are_measured_apart():
    problem = DigitSheet(side=2, held_out=0.25).load(0)
    coordinates, values = problem.fitted
    assert len(values) == 192
    assert coordinates.aminmax() == (-1.0, 1.0)
    whole, hidden = problem.instance["signal"].flatten(0, -2), problem.instance["hidden"]
    worse = torch.where(hidden[:, None], whole + 0.2, whole + 0.02)
    span = float(whole.max() - whole.min())
    found = problem.evaluate(lambda x: worse)
    assert found["psnr"] - found["held_out_psnr"] == pytest.approx(20.0, abs=1e-3)
    assert found["psnr"] == pytest.approx(psnr(whole + 0.02, whole, span), abs=1e-3)
    assert grid((2, 3)).tolist() == [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]


def fitted(kind, problem, seed):
    method = begun(kind, problem, seed)
    while not method.done:
        method.step()
    return problem.evaluate(method.solution())["psnr"]


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_a_classifiers_first_two_layers_begin_with_noise_of_its_images(strength, tmp_path):
    """Two columns of a checkerboard repeat at every second pixel: the highest frequency, along one axis of two."""
    bench = Workbench(composed(["method=winner_classifier", "progress=off", f"output_dir={tmp_path}"]))
    method = WinnerClassifier(bench.method("method").model, Recipe(), strength)
    before = {name: p.clone() for name, p in method.model.state_dict().items()}
    columns = torch.tensor([0, 255], dtype=torch.uint8).repeat(8, 4).expand(300, 1, 8, 8)
    method.batches(replace(bench.setting, parts={"train": TensorSet(columns, torch.zeros(300, dtype=torch.long))}))
    added = {name: p - before[name] for name, p in method.model.state_dict().items()}
    assert method.outcome["centroid"] == pytest.approx(0.5)
    first, second = noise_scales(0.5, (8, 8), "published")
    changed = {name: change.std().item() for name, change in added.items() if change.any()}
    if not strength:
        assert not changed
        return
    assert [*changed.values()] == [pytest.approx(s / 60, rel=0.05) for s in (first, second)]
    assert [*changed] == [name for name, p in before.items() if p.ndim == 2][:2]


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_a_plain_siren_stays_at_zero_on_high_frequencies(seed):
    """The bottleneck: it is as good as nothing; with noise the sound is fitted. The control of low frequencies both
    fit."""
    high, low = BandSignal().load(seed), BandSignal(low=0.001, high=0.01).load(seed)
    assert fitted(SirenFit, high, seed) < high.about()["psnr_of_the_mean"] + 1
    assert fitted(Winner, high, seed) > high.about()["psnr_of_the_mean"] + 20
    assert min(fitted(kind, low, seed) for kind in (SirenFit, Winner)) > 35
