"""Solvers in float32 against float64, what they refuse then, what memory they state, and tensors that stay on the
device of the instance."""

import copy

import pytest
import torch

from fisherexp.methods import memory as memory_of_methods
from fisherexp.methods.numerics.robust_matrix_recovery import RobustMatrixRecovery
from fisherexp.methods.numerics.sinkhorn import Sinkhorn
from fisherexp.methods.numerics.sinkhorn_newton import SinkhornNewton
from fisherexp.methods.statistics.causal_balancing import CausalBalancing
from fisherexp.problems import memory
from fisherexp.problems.corrupted_low_rank import CorruptedLowRank
from fisherexp.problems.ratings import SimulatedRatings
from fisherexp.problems.transport import PointClouds, RandomAssignment
from fisherexp.runs.trainer import device_of

SMALL = {"dimension": 8, "rank": 2, "measurements": 120}


def finished(method, problem):
    method.begin(problem, 0)
    while not method.done:
        method.step()
    return method


def newton(dtype, problem):
    tolerance = {"float64": 1e-10, "float32": 1e-6}[dtype]
    return SinkhornNewton(warmup=10, kept_per_point=5.0, tolerance=tolerance), problem(dtype=dtype).load(0)


CASES = {
    "assignment": lambda dtype: newton(dtype, lambda dtype: RandomAssignment(n=40, eta=100.0, dtype=dtype)),
    "parts": lambda dtype: newton(dtype, lambda dtype: PointClouds(25, 15, eta=100.0, rows_at_once=4, dtype=dtype)),
    "recovery": lambda dtype: (RobustMatrixRecovery(steps=100), CorruptedLowRank(**SMALL, dtype=dtype).load(0)),
    "balancing": lambda dtype: (
        CausalBalancing("moments", steps=20, pairs=500),
        SimulatedRatings(30, 20, dtype=dtype).load(0),
    ),
}
DETERMINED = {  # what of a tensor is: potentials are known up to a constant, a factor up to a rotation
    "x": lambda x: x - x.mean(),
    "y": lambda y: y - y.mean(),
    "factor": lambda factor: factor @ factor.T,
}
# Largest difference, as a share of the largest value: of tensors, and of metrics.
CLOSE = {"assignment": (1e-4, 1e-4), "parts": (1e-4, 1e-4), "recovery": (1e-4, 1e-3), "balancing": (1e-3, 1e-4)}


@pytest.mark.parametrize("case", CASES)
def test_in_float32_results_are_nearly_those_in_float64(case):
    results = []
    for dtype in ("float32", "float64"):
        method, problem = CASES[case](dtype)
        finished(method, problem)
        assert {tensor.dtype for tensor in method.tensors().values()} == {getattr(torch, dtype)}
        results.append((method.tensors(), problem.evaluate(method.solution())))
    (single, figures), (double, expected) = results
    apart, relative = CLOSE[case]
    for name, tensor in double.items():
        found, true = (DETERMINED.get(name, lambda part: part)(part) for part in (single[name], tensor))
        off = (found - true).abs().max() / true.abs().max()
        assert 0 < off < apart, name  # the control: 0 would be float64 under another name
    for name in {"transport_cost", "entropy", "relative_error", "mse", "mae"} & expected.keys():
        assert figures[name] == pytest.approx(expected[name], rel=relative)


def test_the_measurements_in_float32_are_those_in_float64_rounded():
    single, double = (CorruptedLowRank(**SMALL, dtype=dtype).load(0).instance for dtype in ("float32", "float64"))
    assert torch.equal(single["operators"], double["operators"].float())
    torch.testing.assert_close(single["values"], double["values"].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "problem", "said"),
    [
        (
            SinkhornNewton(),
            RandomAssignment(n=9, dtype="float32"),
            r"method\.tolerance=1e-10: masses in torch\.float32 are rounded by 1\.2e-07; method\.tolerance=1e-06, or",
        ),
        (Sinkhorn(tolerance=1e-8), PointClouds(n=9, m=9, dtype="float32"), r"method\.tolerance=1e-08.*float64"),
        (Sinkhorn(tolerance=1e-17), PointClouds(n=9, m=9), r"method\.tolerance=1e-17.* torch\.float64"),
        (
            RobustMatrixRecovery(init_scale=1e-9),
            CorruptedLowRank(**SMALL, dtype="float32"),
            r"method\.init_scale=1e-09: .*float32 resolves 1\.2e-07; method\.init_scale=1e-06, or data\.dtype=float64",
        ),
        (
            CausalBalancing(tolerance=1e-6),
            SimulatedRatings(dtype="float32"),
            r"method\.tolerance=1e-06: .* are known to 1e-05; method\.tolerance=1e-05, or data\.dtype=float64",
        ),
    ],
)
def test_what_a_type_does_not_resolve_is_refused(method, problem, said):
    with pytest.raises(ValueError, match=said):
        method.begin(problem.load(0), 0)


def test_the_line_of_a_run_that_has_not_converged_names_the_type(caplog):
    finished(Sinkhorn(tolerance=1e-6, max_iterations=2), RandomAssignment(n=9, dtype="float32").load(0))
    assert caplog.messages[0].endswith("or data.dtype=float64")
    caplog.clear()
    finished(Sinkhorn(tolerance=1e-6, max_iterations=2), RandomAssignment(n=9).load(0))
    assert "float64" not in caplog.messages[0]


def test_half_the_memory_is_stated():
    half, whole = (memory.needed(900, 700, 50, dtype) for dtype in (torch.float32, torch.float64))
    assert 2 * half == whole
    half, whole = (CorruptedLowRank(**SMALL, dtype=dtype) for dtype in ("float32", "float64"))
    assert 2 * half.bytes_needed == whole.bytes_needed
    assert half.load(0).instance["operators"].nbytes == half.bytes_needed
    half, whole = (
        memory_of_methods.announce("kernels", 90, 70, dtype=dtype, advice="")
        for dtype in (torch.float32, torch.float64)
    )
    assert 2 * half == whole == 8 * 90 * 70


def test_the_kernels_state_their_own_type(monkeypatch):
    stated = []
    monkeypatch.setattr(
        "fisherexp.methods.statistics.causal_balancing.announce", lambda *_, dtype, **__: stated.append(dtype)
    )
    for dtype in ("float32", "float64"):
        method, problem = CASES["balancing"](dtype)
        method.begin(problem, 0)
        assert method.functions.dtype == stated[-1] == getattr(torch, dtype)


@pytest.mark.parametrize("case", [*CASES, *CausalBalancing.__init__.__annotations__["weights"].__args__])
def test_a_step_makes_tensors_where_the_instance_is(case):
    """Tensors without a device of their own are made on `meta` here, and mix with no others."""
    if case in CASES:
        method, problem = CASES[case]("float64")
    else:
        estimator = "doubly_robust" if case == "kernel" else "snips"
        problem = SimulatedRatings(30, 20, liked=3.0).load(0)
        method = CausalBalancing(case, estimator, centers=5, pairs=200, tolerance=1e-2, refit_every=1)
    assert method.on_device
    method.begin(problem, 0)
    steps = 12 if case in ("assignment", "parts") else 2  # Newton's follow ten sweeps
    with torch.device("meta"):
        for _ in range(steps):
            method.step()
        if isinstance(method, CausalBalancing):
            method._weights()
        problem.evaluate(method.solution())
        method.metrics()
        with pytest.raises(RuntimeError, match="device"):  # the control
            torch.zeros(3) + method.tensors()[next(iter(method.tensors()))].flatten()[:3]


def test_a_problem_moves_with_its_instance():
    problem = CorruptedLowRank(**SMALL).load(0)
    moved = problem.to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved.instance.values()} == {"meta"}
    assert {tensor.device.type for tensor in problem.instance.values()} == {"cpu"}
    assert copy.copy(problem).to(torch.device("cpu")).instance["truth"] is problem.instance["truth"]


@pytest.mark.parametrize(
    ("accelerator", "there", "device"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("gpu", True, "cuda"),
        ("mps", False, "cpu"),
    ],
)
def test_the_device_is_the_trainers(monkeypatch, accelerator, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(accelerator).type == device


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"trainer\.accelerator=gpu: torch finds no CUDA device here; trainer=cpu"):
        device_of("gpu")
