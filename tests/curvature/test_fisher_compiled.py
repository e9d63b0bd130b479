"""The compiled kernel gives the plain path's sums, and it is recorded which of the two was used."""

from itertools import product

import pytest
import torch
from fisher_oracles import Residual, TinyGPT, Tokens, one_at_a_time, worst
from test_fisher_exact import RULES
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import DiagonalAccumulator, FisherDiagonal, fisher_diagonal, kernels

COVERED = [name for name in RULES if name.startswith(("conv", "linear"))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", COVERED)
def test_layers(compiled, name, dtype):
    torch.manual_seed(0)
    make, batch = RULES[name]
    model, x = make(), batch(6)
    classes = model(x).shape[1]
    model, x, y = model.to(dtype), x.to(dtype), torch.randint(0, classes, (6,))
    batches = [(x, y), (x[:5].flip(-1), y[:5])]
    found, plain = (fisher_diagonal(model, batches, compiled=choice) for choice in (True, False))
    assert worst(found, dict(plain.items())) <= (1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize(("outputs", "features"), [*product([1, 8, 19], [1, 48, 113]), (2800, 50)])
@pytest.mark.parametrize(("samples", "positions"), [(3, 5), (60, 5), (3, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_edges_of_tiles(compiled, outputs, features, samples, positions, dtype):
    """Sums that are no multiple of a tile, parts of many samples and of one, gradients in both memory layouts."""
    torch.manual_seed(0)
    x = torch.randn(samples, positions, features, dtype=torch.float64)
    g = torch.randn(samples, positions, outputs, dtype=torch.float64)
    expected = 2 * torch.einsum("nto,ntk->nok", g, x).square().sum(0)
    total = torch.zeros(outputs, 1, 1, features, dtype=dtype)
    x, g = x.to(dtype), g.to(dtype)
    for left in (g, g.mT.contiguous().mT):
        compiled(left, x.unsqueeze(2), total, [positions, 1], [1, 1], [0, 0], [1, 1])
    rounding = 1e-12 if dtype == torch.float64 else 1e-4
    scale = expected.max().item()
    torch.testing.assert_close(total[:, 0, 0].double(), expected, rtol=rounding, atol=rounding * scale)


@pytest.mark.parametrize("dilation", [1, 2])
def test_parts_of_several_images(compiled, dilation):
    """A sample of three images whose positions are more than are packed at a time; they end within an image."""
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 9, 3, stride=(1, 2), padding=(2, 1), dilation=dilation, bias=False).double()
    x = torch.randn(6, 5, 17, 30).double()
    y = conv(x)
    g = torch.randn_like(y)
    expected = sum(
        torch.autograd.grad((conv(x[part]) * g[part]).sum(), conv.weight)[0].square()
        for part in torch.arange(6).split(3)
    )
    total = torch.zeros(9, 3, 3, 5).double()
    options = [*y.shape[2:]], [1, 2], [2, 1], [dilation, dilation]
    compiled(g.flatten(2).mT, x.movedim(1, -1).contiguous(), total, *options, 3)
    torch.testing.assert_close(total.movedim(-1, 1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", [(1, 1), (0, 2)])
@pytest.mark.parametrize(
    ("size", "channels", "outputs", "groups", "images"),
    [
        ((8, 8), 16, 8, 1, 1),
        ((7, 9), 70, 21, 1, 1),  # tiles beyond the border, vectors and rows that are not full
        ((21, 30), 50, 40, 1, 1),  # more tiles than are packed at a time
        ((9, 6), 32, 16, 2, 3),  # groups, and three images to a sample
        ((6, 6), 16, 600, 1, 1),  # several blocks of outputs
        ((6, 6), 400, 9, 1, 1),  # and of channels
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_minimal_filtering(compiled, size, channels, outputs, groups, images, padding, dtype):
    """3x3 kernels without strides at positions enough for it, gradients in both memory layouts; oracle: autograd."""
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, outputs, 3, padding=padding, groups=groups, bias=False).double()
    x = torch.randn(2 * images, channels, *size).double()
    y = conv(x)
    g = torch.randn_like(y)
    expected = sum(
        torch.autograd.grad((y[part] * g[part]).sum(), conv.weight, retain_graph=True)[0].square()
        for part in torch.arange(len(x)).split(images)
    )
    total = torch.zeros(outputs, 3, 3, channels // groups, dtype=dtype)
    x, g = x.movedim(1, -1).contiguous().to(dtype), g.to(dtype)
    where = [*y.shape[2:]], [1, 1], list(padding), [1, 1]
    for left in (g.flatten(2).mT, g.flatten(2).mT.contiguous()):
        compiled(left, x, total, *where, images, groups)
    rounding = 1e-12 if dtype == torch.float64 else 1e-5
    scale = expected.max().item()
    torch.testing.assert_close(total.movedim(-1, 1).double(), 2 * expected, rtol=rounding, atol=rounding * scale)


@pytest.mark.parametrize("kernel", [1, (3, 4), 5, 7])
@pytest.mark.parametrize(
    ("size", "channels", "outputs", "samples", "images"),
    [((8, 6), 3, 3, 2, 1), ((8, 6), 40, 40, 9, 1), ((8, 6), 4, 12, 2, 3), ((90, 70), 17, 17, 1, 1)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_depthwise(compiled, size, kernel, channels, outputs, samples, images, dtype):
    """Channels that fill no vector, pieces of several samples, bands of rows, several outputs to a channel, images."""
    torch.manual_seed(0)
    options = {"stride": (1, 2), "padding": (3, 4), "dilation": (2, 1), "groups": channels, "bias": False}
    conv = nn.Conv2d(channels, outputs, kernel, **options).double()
    x = torch.randn(samples * images, channels, *size).double()
    y = conv(x)
    g = torch.randn_like(y)
    expected = sum(
        torch.autograd.grad((y[part] * g[part]).sum(), conv.weight, retain_graph=True)[0].square()
        for part in torch.arange(len(x)).split(images)
    )
    total = torch.zeros(outputs, *conv.kernel_size, 1, dtype=dtype)
    x, g = x.movedim(1, -1).contiguous().to(dtype), g.to(dtype)
    where = [*y.shape[2:]], [1, 2], [3, 4], [2, 1]
    for left in (g.flatten(2).mT, g.flatten(2).mT.contiguous()):
        compiled(left, x, total, *where, images, channels)
    rounding = 1e-12 if dtype == torch.float64 else 1e-4
    scale = expected.max().item()
    torch.testing.assert_close(total.movedim(-1, 1).double(), 2 * expected, rtol=rounding, atol=rounding * scale)


NETWORKS = {
    "convolutions": (Residual, lambda: torch.randn(5, 3, 8, 8).double(), lambda: torch.randint(0, 5, (5,)), None),
    "attention": (Tokens, lambda: torch.randn(5, 4, 8).double(), lambda: torch.randint(0, 5, (5,)), None),
    "tied embedding": (TinyGPT, *[lambda: torch.randint(0, 11, (5, 7))] * 2, "sequence"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(compiled, name):
    torch.manual_seed(0)
    make, inputs, targets, loss = NETWORKS[name]
    model, x, y = make().double().eval(), inputs(), targets()
    oracle = F.cross_entropy if loss is None else lambda z, t: F.cross_entropy(z.mT, t)
    found = fisher_diagonal(model, [(x, y)], loss=loss, compiled=True)
    assert found.path == "compiled"
    assert worst(found, one_at_a_time(model, x, y, oracle)) <= 1e-10


@pytest.mark.parametrize(("outputs", "groups"), [(70, 1), (99, 3), (99, 99)])
def test_threads_change_nothing(compiled, outputs, groups):
    torch.manual_seed(0)
    g, x = torch.randn(40, 6, outputs), torch.randn(40, 6, 1, 99)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(torch.zeros(outputs, 1, 1, 99 // groups))
            compiled(g, x, found[-1], [6, 1], [1, 1], [0, 0], [1, 1], 1, groups)
    finally:
        torch.set_num_threads(before)
    assert found[0].sum() > 0
    assert torch.equal(*found)


@pytest.mark.parametrize(("channels", "outputs", "groups"), [(16, 8, 1), (100, 70, 1), (64, 64, 2)])
def test_threads_change_nothing_in_minimal_filtering(compiled, channels, outputs, groups):
    torch.manual_seed(0)
    g, x = torch.randn(5, 64, outputs), torch.randn(5, 8, 8, channels)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(torch.zeros(outputs, 3, 3, channels // groups))
            compiled(g, x, found[-1], [8, 8], [1, 1], [1, 1], [1, 1], 1, groups)
    finally:
        torch.set_num_threads(before)
    assert found[0].sum() > 0
    assert torch.equal(*found)


def test_path_is_recorded_and_does_not_separate_results(compiled, tmp_path):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.randint(0, 3, (6,))
    parts = [
        fisher_diagonal(model, [(x[rows], y[rows])], compiled=choice)
        for rows, choice in ((slice(0, 2), True), (slice(2, 6), False))
    ]
    assert [part.path for part in parts] == ["compiled", "plain"]
    assert parts[0].estimator == parts[1].estimator
    assert worst(FisherDiagonal.combine(parts), one_at_a_time(model, x, y)) <= 1e-5
    parts[0].save(tmp_path / "fisher.safetensors")
    assert FisherDiagonal.load(tmp_path / "fisher.safetensors").path == "compiled"


def test_failure_to_compile_is_said_once_and_recorded(monkeypatch, recwarn):
    def no_compiler():
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(kernels, "build", no_compiler)
    kernels._loaded.cache_clear()
    try:
        torch.manual_seed(0)
        model, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.randint(0, 3, (6,))
        for _ in range(2):
            found = fisher_diagonal(model, [(x, y)], compiled=True)
            assert found.path == "plain (no compiler here)"
            assert worst(found, one_at_a_time(model, x, y)) <= 1e-5
        assert len(recwarn.list) == 1
    finally:
        kernels._loaded.cache_clear()


def test_nothing_is_compiled_unasked(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DiagonalAccumulator(nn.Linear(4, 3)).path == "plain"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="'auto', True or False"):
        DiagonalAccumulator(nn.Linear(4, 3), compiled="yes")
