"""The per-sample diagonal equals the batch-size-1 loop in float64, for every rule and architecture."""

import warnings

import pytest
import torch
from fisher_oracles import Residual, Shared, TinyGPT, Tokens, Windows, one_at_a_time, worst
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import DiagonalAccumulator, fisher_diagonal
from fisherexp.curvature.rules import conv, outer
from fisherexp.curvature.rules.outer import add_in_cache, add_many_at_once


def flat(*layers):
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.LazyLinear(5))


def images(*shape):
    return lambda n: torch.randn(n, *shape)


class Conv1D(nn.Module):
    """As in transformers: a linear layer with its weight transposed, over positions flattened."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


RULES = {
    "conv1d of transformers": (lambda: flat(Conv1D(4, 6)), images(3, 4)),
    "linear": (lambda: nn.Linear(7, 5), images(7)),
    "linear, positions": (lambda: flat(nn.Linear(4, 6)), images(3, 4)),
    "linear, two position axes": (lambda: flat(nn.Linear(4, 6, bias=False)), images(3, 2, 4)),
    "conv2d": (lambda: flat(nn.Conv2d(3, 4, 3)), images(3, 6, 6)),
    "conv2d, many positions": (lambda: flat(nn.Conv2d(3, 4, 3, padding=1)), images(3, 17, 16)),
    "conv2d, stride padding dilation": (
        lambda: flat(nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))),
        images(3, 8, 7),
    ),
    "conv2d, one channel": (lambda: flat(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 3)), images(1, 6, 5)),
    "conv2d, many channels": (lambda: flat(nn.Conv2d(17, 9, 3, stride=2, padding=1)), images(17, 6, 5)),
    "conv2d, many channels, dilation": (lambda: flat(nn.Conv2d(18, 3, 3, dilation=2)), images(18, 6, 7)),
    "conv2d, groups": (lambda: flat(nn.Conv2d(4, 6, 3, groups=2, bias=False)), images(4, 6, 6)),
    "conv2d, groups, many positions": (lambda: flat(nn.Conv2d(4, 6, 3, groups=2, padding=1)), images(4, 16, 16)),
    "conv2d, groups, channels last": (
        lambda: flat(nn.Conv2d(4, 6, 3, groups=2, padding=1).to(memory_format=torch.channels_last)),
        images(4, 16, 16),
    ),
    "conv2d, depthwise": (lambda: flat(nn.Conv2d(4, 4, 3, groups=4)), images(4, 6, 6)),
    "conv2d, depthwise, many positions": (lambda: flat(nn.Conv2d(3, 3, 5, groups=3, padding=2)), images(3, 18, 17)),
    "conv2d, depthwise, stride padding dilation": (
        lambda: flat(nn.Conv2d(19, 19, (3, 5), stride=(2, 3), padding=(3, 1), dilation=(2, 1), groups=19)),
        images(19, 8, 9),
    ),
    "conv2d, depthwise, 7x7": (lambda: flat(nn.Conv2d(5, 5, 7, padding=3, groups=5, bias=False)), images(5, 6, 7)),
    "conv2d, depthwise, several outputs to a channel": (
        lambda: flat(nn.Conv2d(3, 9, 3, stride=2, groups=3)),
        images(3, 7, 6),
    ),
    "conv2d, depthwise, same padding of an even kernel": (
        lambda: flat(nn.Conv2d(3, 3, 4, padding="same", groups=3)),
        images(3, 5, 5),
    ),
    "conv2d, depthwise, circular border": (
        lambda: flat(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular", groups=3)),
        images(3, 5, 5),
    ),
    "conv2d, groups, stride padding dilation": (
        lambda: flat(nn.Conv2d(6, 9, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=3)),
        images(6, 8, 7),
    ),
    "conv2d, groups of a tile each": (lambda: flat(nn.Conv2d(40, 20, 3, groups=2)), images(40, 6, 6)),
    "conv2d, same padding of an even kernel": (lambda: flat(nn.Conv2d(3, 4, 2, padding="same")), images(3, 5, 5)),
    "conv2d, same, many": (lambda: flat(nn.Conv2d(2, 3, 2, padding="same")), images(2, 16, 16)),
    "conv2d, reflected border": (lambda: flat(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), images(3, 5, 5)),
    "conv2d, 1x1": (lambda: flat(nn.Conv2d(3, 4, 1, stride=2)), images(3, 6, 6)),
    "conv1d": (lambda: flat(nn.Conv1d(3, 4, 3, stride=2, padding=1, groups=1)), images(3, 9)),
    "conv1d, groups": (lambda: flat(nn.Conv1d(4, 4, 3, groups=2, dilation=2)), images(4, 9)),
    "conv1d, depthwise, causal": (lambda: flat(nn.Conv1d(5, 5, 4, padding=3, groups=5)), images(5, 9)),
    "conv3d": (lambda: flat(nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1))), images(2, 3, 4, 5)),
    "conv3d, groups": (lambda: flat(nn.Conv3d(4, 6, 2, groups=2, dilation=(1, 2, 1))), images(4, 3, 4, 5)),
    "conv3d, depthwise": (lambda: flat(nn.Conv3d(3, 6, 2, groups=3, padding=1)), images(3, 3, 4, 3)),
    "conv transpose": (lambda: flat(nn.ConvTranspose2d(3, 4, 3, stride=2)), images(3, 4, 4)),
    "batch norm": (lambda: flat(nn.BatchNorm2d(3)), images(3, 4, 4)),
    "batch norm of vectors": (lambda: flat(nn.BatchNorm1d(6)), images(6)),
    "norms of vectors between layers": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 5)),
        images(6),
    ),
    "layer norm": (lambda: flat(nn.LayerNorm(6)), images(4, 6)),
    "layer norm, two axes": (lambda: flat(nn.LayerNorm((4, 6))), images(2, 4, 6)),
    "layer norm without bias": (lambda: flat(nn.LayerNorm(6, bias=False)), images(6)),
    "rms norm": (lambda: flat(nn.RMSNorm(6)), images(4, 6)),
    "group norm": (lambda: flat(nn.GroupNorm(2, 4)), images(4, 3, 3)),
    "instance norm": (lambda: flat(nn.InstanceNorm2d(4, affine=True)), images(4, 3, 3)),
    "embedding": (lambda: flat(nn.Embedding(5, 4)), lambda n: torch.randint(0, 5, (n, 6))),
    "embedding, sparse": (lambda: flat(nn.Embedding(5, 4, sparse=True)), lambda n: torch.randint(0, 5, (n, 6))),
    "embedding, sparse, large": (
        lambda: flat(nn.Embedding(2000, 4, sparse=True)),
        lambda n: torch.randint(0, 2000, (n, 6)),
    ),
    "embedding, padding": (lambda: flat(nn.Embedding(5, 4, padding_idx=-2)), lambda n: torch.randint(0, 5, (n, 6))),
    "bilinear form": (lambda: flat(nn.Linear(4, 3), nn.PReLU(3)), images(4)),
    "recurrent": (lambda: Recurrent(), images(5, 4)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), images(6)),
}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 5)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def classes_of(model, x, n):
    return torch.randint(0, model(x).shape[-1], (n,))


def assert_exact(model, inputs, tolerance=1e-10, **options):
    model = model.double().eval()
    x = inputs(6)
    x = x.double() if x.is_floating_point() else x
    y = classes_of(model, x, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fisher_diagonal(model, [(x, y)], **options)
    assert worst(found, one_at_a_time(model, x, y)) <= tolerance
    assert all(v.dtype == torch.float64 for _, v in found.items())


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    torch.manual_seed(0)
    make, inputs = RULES[name]
    model = make()
    model(inputs(2))  # lazy layers
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d, nn.GroupNorm, nn.LayerNorm)):
            nn.init.normal_(module.weight)
    assert_exact(model, inputs)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kdim", [None, 4])
def test_multihead_attention(batch_first, need_weights, kdim):
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=kdim, vdim=kdim)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            other = x[..., :4] if kdim else x
            mask = torch.zeros(x.shape[0 if batch_first else 1], 6, dtype=torch.bool)
            mask[:, -1] = True
            out = self.inner(x, other, other, need_weights=need_weights, key_padding_mask=mask)[0]
            return self.head(out.mean(1 if batch_first else 0))

    torch.manual_seed(0)
    model = Attend().double().eval()
    x = torch.randn(4, 6, 8).double()
    y = torch.randint(0, 3, (4,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the written-out attention leaves nothing to a fallback
        found = fisher_diagonal(model, [(x, y)])
    assert worst(found, one_at_a_time(model, x, y)) <= 1e-10


def test_conv1d_of_transformers_needs_no_fallback():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.Sequential(Conv1D(4, 6), nn.Tanh(), nn.Flatten(), nn.Linear(18, 5))
        fisher_diagonal(model, [(torch.randn(5, 3, 4), torch.arange(5))])


@pytest.mark.parametrize("module", [Shared, Residual, Windows])
def test_network(module):
    torch.manual_seed(0)
    shape = {Shared: (6,), Residual: (3, 8, 8), Windows: (8, 6)}[module]
    assert_exact(module(), images(*shape))


@pytest.mark.parametrize("length", [5, 6, 8])  # 6 samples: one length equals the batch size
def test_tokens_and_free_parameters(length):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, x = Tokens().double().eval(), torch.randn(6, length, 8).double()
        y = torch.randint(0, 5, (6,))
        found = fisher_diagonal(model, [(x, y)])
    assert worst(found, one_at_a_time(model, x, y)) <= 1e-10


def sequence_loss(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("tie", ["module", "function", "none"])
@pytest.mark.parametrize("batch", [3, 7])
def test_gpt(tie, batch):
    """Tied weights: both uses are summed before squaring. Seven sequences of seven tokens are ambiguous by shape."""
    torch.manual_seed(0)
    model = TinyGPT(tie=tie).double().eval()
    x, y = torch.randint(0, 13, (2, batch, 7))
    found = fisher_diagonal(model, [(x, y)], loss="sequence")
    expected = one_at_a_time(model, x, y, sequence_loss)
    assert worst(found, expected) <= 1e-10
    if tie == "module":
        assert "head.weight" not in found  # one parameter, one name


def test_torchvision_resnet18():
    resnet18 = pytest.importorskip("torchvision.models").resnet18
    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    model.train()(torch.randn(4, 3, 32, 32))  # statistics away from their initial values
    model.double().eval()
    x, y = torch.randn(3, 3, 40, 40).double(), torch.randint(0, 5, (3,))
    assert worst(fisher_diagonal(model, [(x, y)]), one_at_a_time(model, x, y)) <= 1e-10


@pytest.mark.parametrize("options", [{}, {"init_values": 0.1, "class_token": False, "global_pool": "avg"}])
def test_timm_vit(options):
    timm_vit = pytest.importorskip("timm.models.vision_transformer").VisionTransformer
    torch.manual_seed(0)
    model = timm_vit(img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=5, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = model.double().eval()
        x, y = torch.randn(5, 3, 8, 8).double(), torch.randint(0, 5, (5,))  # 5 samples, 5 tokens
        found = fisher_diagonal(model, [(x, y)])
    assert worst(found, one_at_a_time(model, x, y)) <= 1e-10


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("wide_resnet", "WideResNet", {"depth": 10, "widen": 1}),
        ("vit", "ViT", {"patch": 4, "dim": 12, "depth": 2, "heads": 2}),
        ("resnet", "ResNet18", {}),
    ],
)
def test_models_of_this_project(module, name, options):
    make = getattr(pytest.importorskip(f"fisherexp.models.{module}"), name)
    torch.manual_seed(0)
    features = make(**options, input_shape=(3, 8, 8))
    model = nn.Sequential(features, nn.Linear(features.num_features, 5))
    model.train()(torch.randn(4, 3, 8, 8))  # statistics away from their initial values
    model.double().eval()
    x, y = torch.randn(5, 3, 8, 8).double(), torch.randint(0, 5, (5,))
    assert worst(fisher_diagonal(model, [(x, y)]), one_at_a_time(model, x, y)) <= 1e-10


@pytest.mark.parametrize("name", ["conv2d, many positions", "conv2d, same, many"])
def test_large_convolutions_go_one_sample_at_a_time(name, monkeypatch):
    calls, whole = [], conv.Conv.one_by_one
    monkeypatch.setattr(conv, "MANY_PRODUCTS", 1)
    monkeypatch.setattr(conv.Conv, "one_by_one", lambda *a: calls.append(a) or whole(*a))
    torch.manual_seed(0)
    make, draw = RULES[name]
    model, x = make(), draw(5)
    model(x)  # decides the lazy layer's size
    model.double().eval()
    y = torch.randint(0, 5, (5,))
    found = fisher_diagonal(model, [(x.double(), y)], compiled=False)
    assert calls
    assert worst(found, one_at_a_time(model, x.double(), y)) <= 1e-10


@pytest.fixture
def threads():
    """Sets the number of threads for the rest of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("rows", [7, 8])  # an odd number of rows cannot be shared by two threads
@pytest.mark.parametrize("width", [4, 12])  # of two threads, each forms rows of the larger side
@pytest.mark.parametrize("way", ["blocks", "several", "shared", "batched"])
@pytest.mark.parametrize("turned", [False, True])
def test_squared_outer(way, width, rows, number, turned, threads, monkeypatch):
    torch.manual_seed(0)
    g, x = torch.randn(5, 3, rows).double(), torch.randn(5, 3, width).double()
    total = torch.ones(width, rows).mT.double() if turned else torch.ones(rows, width).double()
    monkeypatch.setattr(outer, "GRAIN", 1 if way == "shared" else outer.GRAIN)
    threads(number)
    if way == "batched":
        add_many_at_once([(g, x)], total)
    else:
        add_in_cache([(g, x)], total, 3 * width * 8 if way == "blocks" else 8 * total.nbytes)
    torch.testing.assert_close(total, 1 + torch.einsum("nto,ntk->nok", g, x).square().sum(0))


def test_large_sums_keep_the_layout_they_are_formed_in(threads, monkeypatch):
    """Turned by the first of two threads' batches, they serve one thread, other sizes and a restored state too."""
    monkeypatch.setattr(conv, "MANY_PRODUCTS", 1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 72, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(288, 5))
    model.double().eval()
    # The fourth goes one sample at a time, the last in channels-last: its images are larger than the weights.
    sizes = [(2, 4, 5), (2, 5, 4), (3, 5, 5), (1, 19, 18), (50, 5, 5)]
    batches = [(torch.randn(n, 64, h, w).double(), torch.randint(0, 5, (n,))) for n, h, w in sizes]
    accumulator = DiagonalAccumulator(model, compiled=False)
    for number, batch in zip((2, 1, 2, 2, 2), batches, strict=True):
        threads(number)
        accumulator.update(*batch)
        if number == 1:
            state = {name: value.clone() for name, value in accumulator.sums().items()}
            accumulator = DiagonalAccumulator(model, compiled=False)
            accumulator.load_sums(state)
    assert accumulator.sums()["sum.0.weight"].permute(2, 3, 1, 0).is_contiguous()
    sums = [(len(y), one_at_a_time(model, x, y)) for x, y in batches]
    expected = {n: sum(size * part[n] for size, part in sums) / sum(n for n, *_ in sizes) for n in sums[0][1]}
    assert worst(accumulator.result(), expected) <= 1e-10


def test_agrees_with_vmap():
    torch.manual_seed(0)
    model = Residual().double().eval()
    x, y = torch.randn(6, 3, 8, 8).double(), torch.randint(0, 5, (6,))
    values = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p, x, y):
        return F.cross_entropy(torch.func.functional_call(model, p, (x[None],)), y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(values, x, y)
    expected = {n: g.square().mean(0) for n, g in gradients.items()}
    assert worst(fisher_diagonal(model, [(x, y)]), expected) <= 1e-10


@pytest.mark.parametrize("view", [False, True])
def test_models_that_view_their_activations(view):
    """Convolutions are computed channels-last, which `view` would refuse; then they are not."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(64, 5)

        def forward(self, x):
            h = torch.tanh(self.conv(x))
            return self.head(h.view(h.size(0), -1) if view else h.flatten(1))

    torch.manual_seed(0)
    assert_exact(Net(), images(3, 6, 6))


@pytest.mark.parametrize("module", [Residual, Tokens])
def test_float32(module):
    torch.manual_seed(0)
    model = module().eval()
    x = torch.randn(6, 3, 8, 8) if module is Residual else torch.randn(6, 5, 8)
    y = torch.randint(0, 5, (6,))
    found = fisher_diagonal(model, [(x, y)])
    assert worst(found, one_at_a_time(model.double(), x.double(), y)) <= 1e-4


def test_confident_samples_keep_their_digits():
    """p_y - 1 would leave no correct digit in float32 at a loss of 1e-7."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.mul_(0.1)
        model.bias.copy_(torch.tensor([16.0, 0.0, 0.0]))
    x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    found = fisher_diagonal(model, [(x, y)])
    assert worst(found, one_at_a_time(model.double(), x.double(), y)) <= 1e-5


def test_path_that_changes_between_batches():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            if x.shape[1] > 2:
                x = torch.tanh(self.a(x))
            return self.b(x).mean(1)

    torch.manual_seed(0)
    model = Fickle().double()
    parts = [(torch.randn(3, t, 4).double(), torch.randint(0, 3, (3,))) for t in (2, 4, 2)]
    found = fisher_diagonal(model, parts)
    expected = [one_at_a_time(model, *part) for part in parts]
    assert worst(found, {n: sum(e[n] for e in expected) / 3 for n in found}) <= 1e-10


def test_operation_that_torch_functions_do_not_show():
    """A weight used inside an own autograd function is found in the graph and not silently left out."""

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g @ w.T, x.T @ g

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.head = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.tanh(Double.apply(x, self.w)))

    torch.manual_seed(0)
    model = Net().double()
    x, y = torch.randn(5, 4).double(), torch.randint(0, 3, (5,))
    with pytest.warns(UserWarning, match="w .*one by one"):
        found = fisher_diagonal(model, [(x, y), (x, y)])
    assert worst(found, one_at_a_time(model, x, y)) <= 1e-10


def test_scripted_part():
    torch.manual_seed(0)
    scripted = torch.jit.script(nn.Linear(4, 4).double())
    model = nn.Sequential(nn.Linear(4, 4).double(), scripted, nn.Tanh(), nn.Linear(4, 3).double())
    x, y = torch.randn(5, 4).double(), torch.randint(0, 3, (5,))
    with pytest.warns(UserWarning, match="one by one"):
        found = fisher_diagonal(model, [(x, y)])
    assert worst(found, one_at_a_time(model, x, y)) <= 1e-10


def test_fallback_is_said_once_by_name():
    model = nn.Sequential(nn.PReLU(4), nn.PReLU(4), nn.Linear(4, 3)).double()
    x, y = torch.randn(5, 4).double(), torch.randint(0, 3, (5,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fisher_diagonal(model, [(x, y), (x, y)])
    assert [str(w.message).count("prelu") for w in caught] == [1]
