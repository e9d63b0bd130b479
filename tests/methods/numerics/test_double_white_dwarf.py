"""Forecasts against closed forms, differences, averages over the sky, published noise, and their scaling."""

import math

import pytest
import torch

from fisherexp.methods.numerics import gravitational_response as response
from fisherexp.methods.numerics.double_white_dwarf import DoubleWhiteDwarf
from fisherexp.methods.numerics.gravitational_detectors import YEAR, Observation, noise, observation
from fisherexp.problems.white_dwarf_binaries import (
    WhiteDwarfBinaries,
    amplitude,
    chirp_mass,
    frequency_drift,
    white_dwarf_radius,
)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def source(f_mhz, years=4.0, sin_lat=0.3, cos_i=0.3, psi=0.6, lon=1.1):
    """Parameters (1, 8)."""
    span = years * YEAR
    return tensor(0.0, 0.7, f_mhz * 1e-3 * span, 1e-17 * span**2, lon, sin_lat, cos_i, psi)[None], span


@pytest.fixture(scope="module")
def seen():
    return {"lisa": observation("lisa", 4.0), "tianqin": observation("tianqin", 1.0, duty_cycle=False)}


def at_ten(gamma):
    """The same source at a signal-to-noise ratio of ten."""
    return gamma * (100 / gamma[:, 0, 0])[:, None, None]


def test_a_constant_amplitude_has_the_closed_form_errors():
    """log A, phase, f and drift of a sinusoid in white noise, times from the beginning: σ_f = √48/(πρT), and so on."""
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000

    def signal(given):
        a, phase, f, fdot = (part[:, None] for part in given)
        angle = phase + 2 * math.pi * f * t + math.pi * fdot * t.square()
        return a.exp()[..., None] * torch.stack([angle.cos(), angle.sin()], dim=1)

    slopes = response.jacobian(signal, [tensor(0.2), tensor(1.0), tensor(3.0), tensor(0.5)])
    gamma = at_ten(response.information(slopes, torch.full((4000,), 1 / 4000).double()))
    found = torch.linalg.inv(gamma[0]).diagonal().sqrt()
    expected = tensor(1, 3, math.sqrt(48) / math.pi, math.sqrt(180) / math.pi) / 10
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("detector", ["lisa", "tianqin"])
def test_jacobians_are_those_of_differences(detector, seen):
    few = Observation(*(part[..., :300] if part.ndim != 2 else part[:300] for part in seen[detector]))
    theta, span = source(3.0)
    slopes = response.jacobian(lambda given: response.envelope(given, theta[:, 2], span, few), theta.unbind(1))
    step = 1e-5
    for number in range(8):
        around = [theta.clone() for _ in range(2)]
        around[0][0, number] -= step
        around[1][0, number] += step
        low, high = (response.envelope(given.unbind(1), theta[:, 2], span, few) for given in around)
        scale = float(slopes[number].abs().max())
        torch.testing.assert_close(slopes[number], (high - low) / (2 * step), rtol=0, atol=5e-6 * max(1.0, scale))


@pytest.mark.parametrize("detector", ["lisa", "tianqin"])
def test_the_average_over_sky_and_orientation_is_that_of_the_noise_curve(detector, seen):
    """Σ |E|² = (3/10) (16/5) A², by 400 draws within five standard errors."""
    draw = torch.Generator().manual_seed(0)
    lon, sin_lat, cos_i, psi = (torch.rand(400, generator=draw, dtype=torch.float64) for _ in range(4))
    few = Observation(*(part[..., ::13] if part.ndim != 2 else part[::13] for part in seen[detector]))
    zero = torch.zeros(400, dtype=torch.float64)
    given = [zero, zero, zero, zero, 2 * math.pi * lon, 2 * sin_lat - 1, 2 * cos_i - 1, math.pi * psi]
    power = response.envelope(given, zero, YEAR, few).square().sum((1, 2)).mean(1)
    assert float(power.mean()) == pytest.approx(0.96, abs=5 * float(power.std()) / 20)


def test_errors_are_those_of_an_independent_computation(seen):
    """Areas in sr and σ_lnA, σ_f T, σ_ḟ T² at a ratio of ten, four years, sin(latitude) 0.3, cos i 0.3."""
    areas, errors = {}, {}
    for f, area in ((10.0, 4.84e-4), (3.0, 4.98e-3), (1.0, 2.76e-2)):
        theta, span = source(f)
        found = response.errors(at_ten(response.fisher(theta, span, seen["lisa"])))
        areas[f], errors[f] = float(found["sky_area"]) * (math.pi / 180) ** 2, found
        assert areas[f] == pytest.approx(area, rel=0.35)  # they depend on longitude and polarization
    assert areas[10.0] / areas[3.0] == pytest.approx(0.3**2, rel=0.1)
    for found in errors.values():
        assert 0.21 < float(found["frequency"]) < 0.25
        assert 0.41 < float(found["drift"]) < 0.47
        assert 0.12 < float(found["log_amplitude"]) < 0.17


def test_amplitude_and_inclination_part_ways_edge_on_only(seen):
    edge_on, face_on = (
        response.errors(at_ten(response.fisher(*source(3.0, cos_i=c), seen["lisa"]))) for c in (0.0, 0.95)
    )
    assert float(edge_on["log_amplitude"]) == pytest.approx(0.1, rel=5e-3)  # 1 / ρ
    assert float(face_on["log_amplitude"]) > 1


@pytest.mark.parametrize("detector", ["lisa", "tianqin"])
def test_half_the_samples_are_the_same_information(detector, seen):
    """Of every second time, with twice the weight: integrals of sums of harmonics are exact."""
    theta, span = source(10.0)
    whole = seen[detector]
    half = Observation(whole.t[::2], whole.place[::2], whole.tensors[..., ::2], 2 * whole.weights[::2])
    gammas = [response.fisher(theta, span, part) for part in (whole, half)]
    areas = [float(response.errors(gamma)["sky_area"]) for gamma in gammas]
    assert areas[0] == pytest.approx(areas[1], rel=5e-3)


def test_noise_and_a_known_binary():
    """√S_n without confusion at 3 and 10 mHz, and RX J0806: 0.55 and 0.27 solar masses, 6.22 mHz, 5 kpc."""
    f = tensor(3e-3, 10e-3)
    for detector, expected in (("lisa", (1.74e-20, 1.20e-20)), ("tianqin", (6.12e-20, 1.18e-20))):
        assert noise(detector, f, 4.0, confusion=False).sqrt().tolist() == pytest.approx(expected, rel=5e-3)
        assert (noise(detector, f, 4.0) >= noise(detector, f, 4.0, confusion=False)).all()
    chirp, f = chirp_mass(tensor(0.55), tensor(0.27)), tensor(6.22e-3)
    strength = amplitude(chirp, f, tensor(5.0))
    assert float(strength) == pytest.approx(6.4e-23, rel=0.01)
    assert float(frequency_drift(chirp, f)) == pytest.approx(7.5e-16, rel=0.01)
    ratio = (16 / 5 * strength.square() * 4 * YEAR / noise("lisa", f, 4.0)).sqrt()
    assert float(ratio) == pytest.approx(108.19, rel=1e-3)
    assert 0.009 < float(white_dwarf_radius(tensor(0.8))) < 0.011 < float(white_dwarf_radius(tensor(0.5))) < 0.015


@pytest.fixture(scope="module")
def forecasts():
    problem = WhiteDwarfBinaries(n=20, lowest_mhz=3.0).load(0)
    found = {}
    for detector in ("lisa", "tianqin", "joint"):
        found[detector] = DoubleWhiteDwarf(detector, years=1.0)
        found[detector].begin(problem, 0)
        while not found[detector].done:
            found[detector].step()
    return problem, found


def test_two_observatories_never_know_less_than_one(forecasts):
    problem, found = forecasts
    joint = found["joint"].information
    torch.testing.assert_close(found["lisa"].information + found["tianqin"].information, joint)
    counts = {name: problem.evaluate(method.solution())["detected"] for name, method in found.items()}
    assert counts["joint"] >= max(counts["lisa"], counts["tianqin"]) > 0
    for name in ("lisa", "tianqin"):
        alone, both = found[name].solution(), found["joint"].solution()
        assert all((both[key] <= alone[key] * (1 + 1e-6)).all() for key in ("frequency", "lon", "cos_i", "sky_area"))
    scaled = joint / joint.diagonal(dim1=1, dim2=2).sqrt()[:, :, None] / joint.diagonal(dim1=1, dim2=2).sqrt()[:, None]
    torch.testing.assert_close(scaled, scaled.transpose(1, 2))
    assert float(torch.linalg.eigvalsh(scaled).min()) > -1e-12


def test_twice_the_ratio_halves_errors_and_quarters_the_area(forecasts):
    gamma = forecasts[1]["joint"].information
    once, twice = response.errors(gamma), response.errors(4 * gamma)
    torch.testing.assert_close(twice["frequency"], once["frequency"] / 2)
    torch.testing.assert_close(twice["sky_area"], once["sky_area"] / 4)
    assert response.errors(torch.ones(1, 8, 8, dtype=torch.float64))["phase"].isinf().all()  # singular


def test_goes_on_where_it_was_and_leaves_its_figure(forecasts, tmp_path):
    problem, found = forecasts
    method = DoubleWhiteDwarf("lisa", years=1.0)
    method.begin(problem, 0)
    method.load_state_dict({"information": found["lisa"].information[:16]})
    method.step()
    assert method.done
    assert torch.equal(method.information, found["lisa"].information)
    method.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"errors.png", "errors.pdf"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DoubleWhiteDwarf(years=40.0), r"method\.years=40"),
        (lambda: WhiteDwarfBinaries(5, 20.0), "lowest_mhz=20"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.proof
def test_errors_scale_with_time_and_frequency_as_they_should():
    """At fixed amplitude σ_f ~ T^-3/2, σ_ḟ ~ T^-5/2 from two years on; at fixed ratio area ~ f^-2 above 3 mHz."""
    found = {}
    for years in (2.0, 4.0, 8.0):
        theta, span = source(5.0, years)
        found[years] = response.errors(response.fisher(theta, span, observation("lisa", years)))
    for few, many in ((2.0, 4.0), (4.0, 8.0)):
        # in Hz and Hz/s, so times 1/T and 1/T²
        for name, power in (("frequency", 1), ("drift", 2)):
            ratio = float(found[many][name] / found[few][name]) / 2**power
            assert math.log2(ratio) == pytest.approx(-0.5 - power, abs=0.25)
    areas = [
        float(response.errors(at_ten(response.fisher(*source(f), observation("lisa", 4.0))))["sky_area"])
        for f in (4.0, 16.0)
    ]
    assert math.log(areas[1] / areas[0], 4) == pytest.approx(-2, abs=0.1)
