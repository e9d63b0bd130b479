"""Networks of the kinds that an engine gets wrong without a word: the Fisher is exact, or refused by a sentence.

The oracle is plain autograd, one sample at a time. An engine that trusts its first look gets each of them wrong.
"""

import warnings

import pytest
import torch
from fisher_oracles import worst
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from fisherexp.curvature import (
    DiagonalAccumulator,
    fisher_diagonal,
    following,
    kfac,
    per_sample_gradient_norms,
    register_rule,
    verification,
)
from fisherexp.curvature.rules import linear

pytestmark = pytest.mark.usefixtures("in_double_precision")

N, T, D, C = 5, 6, 4, 3


def reference(model, batches, loss=F.cross_entropy):
    """Mean of squared gradients, sample by sample through the plain model in eval mode."""
    model.eval()
    named = dict(model.named_parameters())
    total, count = {n: torch.zeros_like(p) for n, p in named.items()}, 0
    for x, y in batches:
        xs = x if isinstance(x, tuple) else (x,)
        for i in range(len(y)):
            value = loss(model(*(t[i : i + 1] for t in xs)), y[i : i + 1])
            for n, g in zip(named, torch.autograd.grad(value, list(named.values()), allow_unused=True), strict=True):
                total[n] += 0 if g is None else g.square()
            count += 1
    return {n: t / count for n, t in total.items()}


def assert_exact(model, batches, **options):
    expected = reference(model, batches)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fisher_diagonal(model, batches, **options)
    assert worst(found, expected) <= 1e-9


def data(n=N, t=T):
    return torch.randn(n, t, D), torch.randint(C, (n,))


class Net(nn.Module):
    """Embeds steps, does `how` with them and a parameter w, and reads classes off their mean."""

    def __init__(self, how, shape=(D,), **modules):
        super().__init__()
        self.how, self.embed, self.head = how, nn.Linear(D, D), nn.Linear(D, C)
        self.w = nn.Parameter(torch.randn(shape))
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.head(torch.tanh(self.how(self, self.embed(x))).mean(1))


def step_of_its_own(self, h):
    z = torch.zeros(len(h), T + 1, D)
    z[:, 0], z[:, 1:] = self.w, h
    return z


def masked_steps(self, h):
    mask = torch.zeros(h.shape[:2], dtype=torch.bool)
    mask[:, 2] = True
    z = h.clone()
    z[mask] = self.w
    return z


def steps_by_value(self, h):
    z = h.clone()
    z[h.detach().sum(-1) > 0] = self.w
    return z


def steps_by_ellipsis(self, h):
    z = h.clone()
    z[..., 1, :] = self.w.to(h.dtype)
    return z


def copied(self, h):
    z = h.clone()
    z[:, 0].copy_(self.w)
    return z


def overwritten_weight(self, h):
    w = self.w.clone()
    w[torch.arange(D), torch.arange(D)] = 0.0
    return h @ w


def weight_with_a_row_of_another(self, h):
    w = self.w.clone()
    w[1] = self.embed.bias
    return F.linear(h, w)


def zeroed_weight(self, h):
    w = self.w * 1.0
    w.mul_(2.0).masked_fill_(w > 0.5, 0.0)
    return F.linear(h, w)


def parts_of_a_buffer(self, h):
    w = torch.zeros(D, D)
    w[0], w[1:] = self.embed.bias, self.w[1:]
    return h @ w


WRITTEN = {
    "class token": (step_of_its_own, (D,)),
    "mask token": (masked_steps, (D,)),
    "mask that depends on values": (steps_by_value, (D,)),
    "ellipsis": (steps_by_ellipsis, (1, D)),
    "copy into a view": (copied, (D,)),
    "copy overwritten": (overwritten_weight, (D, D)),
    "copy overwritten by a parameter": (weight_with_a_row_of_another, (D, D)),
    "in place on a derived weight": (zeroed_weight, (D, D)),
    "buffer filled with parameters": (parts_of_a_buffer, (D, D)),
    "index_put": (lambda m, h: h.index_put((torch.arange(len(h)), torch.tensor([1] * len(h))), m.w), (D,)),
    "index_put_": (lambda m, h: h.clone().index_put_((torch.arange(len(h)), torch.tensor([1] * len(h))), m.w), (D,)),
    "index_copy": (lambda m, h: h.index_copy(1, torch.tensor([0]), m.w.expand(len(h), 1, D)), (D,)),
    "where": (lambda m, h: torch.where(h > 0, m.w, h), (D,)),
    "scatter": (lambda m, h: h.scatter_add(1, torch.zeros(len(h), 1, D, dtype=int), m.w.expand(len(h), 1, D)), (D,)),
    "sort": (lambda m, h: h * torch.sort(m.w).values, (D,)),
    "sort in a product": (lambda m, h: h @ m.w.sort(0)[0], (D, D)),
    "topk": (lambda m, h: h * m.w.topk(1).values, (D,)),
    "max of an axis": (lambda m, h: h * m.w.max(0).values, (D, D)),
    "min, median": (lambda m, h: h * m.w.min(0)[0] + m.w.median(1).values, (D, D)),
    "qr": (lambda m, h: h @ torch.linalg.qr(m.w).Q, (D, D)),
    "svd": (lambda m, h: h @ torch.linalg.svd(m.w)[2], (D, D)),
    "slogdet": (lambda m, h: h * torch.linalg.slogdet(m.w).logabsdet, (D, D)),
    "eigh": (lambda m, h: h * torch.linalg.eigh(m.w + m.w.T).eigenvalues, (D, D)),
    "unbind": (lambda m, h: h * m.w.unbind(0)[1] + m.w.unbind(0)[0], (2, D)),
    "complex by hand": (lambda m, h: (h.to(torch.complex128) @ torch.complex(m.w, m.w.T.sin())).real, (D, D)),
    "view as complex": (lambda m, h: (torch.fft.rfft(h) * torch.view_as_complex(m.w)).abs()[..., [0, 1, 2, 1]], (3, 2)),
    "spectrum": (lambda m, h: torch.fft.irfft(torch.fft.rfft(h) * torch.fft.rfft(m.w), n=D), (D,)),
    "repeat": (lambda m, h: h * m.w.repeat(len(h), 1, 1), (T, D)),
    "repeat, merged": (lambda m, h: h * m.w.repeat(len(h), 1).view(len(h), T, D), (T, D)),
    "tile": (lambda m, h: h * torch.tile(m.w, (len(h), 1, 1)), (T, D)),
    "repeat_interleave": (lambda m, h: h * m.w[None].repeat_interleave(len(h), 0), (T, D)),
    "stack": (lambda m, h: h * torch.stack([m.w] * len(h)), (T, D)),
    "cat": (lambda m, h: torch.cat([h, m.w.expand(len(h), 2, D)], 1), (D,)),
    "cat of copies": (lambda m, h: h * torch.cat([m.w[None]] * len(h)), (T, D)),
    "gather": (lambda m, h: h + m.w[(h.detach().sum((1, 2)) > 0).long()][:, None], (2, D)),
    "einsum": (lambda m, h: torch.einsum("btd,de,bte->btd", h, m.w, h), (D, D)),
    "outer": (lambda m, h: h * torch.outer(h[:, 0, 0], m.w)[:, None], (D,)),
    "addcmul": (lambda m, h: torch.addcmul(h, h, m.w), (D,)),
    "lerp": (lambda m, h: torch.lerp(h, h.flip(1), m.w.sigmoid()), (D,)),
    "baddbmm": (lambda m, h: torch.baddbmm(h, h @ h.mT, m.w.expand(len(h), T, D)), (T, D)),
    "bilinear": (lambda m, h: F.bilinear(h, h, m.w), (D, D, D)),
    "conv3d": (lambda m, h: F.conv3d(h[:, None, None], m.w, padding="same")[:, 0, 0], (1, 1, 1, 3, 3)),
    "foreach": (lambda m, h: h * torch._foreach_mul([m.w, m.w.exp()], 2.0)[1], (D,)),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_ways_in_for_a_parameter(kind):
    how, shape = WRITTEN[kind]
    assert_exact(Net(how, shape), [data(), data(4)])


def test_verification_is_what_finds_a_parameter_that_was_missed(monkeypatch):
    """Control: with a tape that loses a parameter in silence, it gets 0 without the identity and its Fisher with it."""
    monkeypatch.setattr("fisherexp.curvature.tape.Tape._lose", lambda self, handles: None)
    model, batch = Net(WRITTEN["copy into a view"][0]), data()
    assert_exact(model, [batch])  # the identity finds what the tape did not say
    monkeypatch.setattr("fisherexp.curvature.verification.Verification.wrong", lambda self, *where: [])
    with pytest.raises(AssertionError):
        assert_exact(model, [batch])


def half(h):
    h[..., ::2] *= 2.0
    return h


CHANGES = {  # the result of a linear layer over positions, which is a view of another tensor
    "activation": nn.ReLU(inplace=True),
    "sigmoid": torch.sigmoid_,
    "part": half,
    "rows": lambda h: h.flatten(0, 1).mul_(2.0).view_as(h).tanh(),
    "twice": lambda h: F.silu(h.mul_(0.5), inplace=True),
    "replaced": lambda h: h[:, 1:].copy_(h[:, :-1].tanh()),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_results_over_positions_changed_in_place(change, bias):
    """As quick as other layers: nothing is said of samples run one by one."""
    model = Net(lambda m, h: CHANGES[change](m.inner(h * m.w)), inner=nn.Linear(D, D, bias=bias))
    batches = [data(), data(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fisher_diagonal(model, batches)
    assert worst(found, reference(model, batches)) <= 1e-9


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.Hardtanh])
def test_chains_with_activations_in_place(activation):
    layers = nn.Linear(D, D), nn.Linear(D, D), activation(inplace=True), nn.Flatten(), nn.Linear(T * D, C)
    assert_exact(nn.Sequential(*layers), [data(), data(3)])


# A forward that is not the module's own.


class Inner(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.net, self.scale = (
            how,
            nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, C)),
            nn.Parameter(torch.tensor(0.3)),
        )
        if how == "hook":
            self.free = nn.Parameter(torch.randn(D, D))
            del self.net[0]._parameters["weight"]
            self.net[0].register_forward_pre_hook(lambda m, _: setattr(m, "weight", self.free * self.scale))

    def forward(self, x):
        x = x.mean(1)
        if self.how == "functional_call":
            return torch.func.functional_call(self.net, {n: p * self.scale for n, p in self.net.named_parameters()}, x)
        if self.how == "swapped":
            first = self.net[0]
            kept = first._parameters
            first._parameters = {n: p + self.scale for n, p in kept.items()}
            try:
                return self.net(x)
            finally:
                first._parameters = kept
        return self.net(x)


@pytest.mark.parametrize("how", ["functional_call", "swapped", "hook"])
def test_forward_with_other_weights(how):
    assert_exact(Inner(how), [data(), data(3)])


@pytest.mark.parametrize(
    "parametrize",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_parametrized_weights(parametrize):
    assert_exact(Net(lambda m, h: m.inner(h), inner=parametrize(nn.Linear(D, D))), [data(), data(3)])


# Rows that are merged, ragged, sorted or chosen.


def time_first(m, h):
    b, t, d = h.shape
    rows = h.transpose(0, 1).reshape(t * b, d)
    return (m.inner(rows) + m.more(rows)).view(t, b, d).transpose(0, 1)


@pytest.mark.parametrize("zero", ["inner", "more", "head", "embed", "all"])
@pytest.mark.parametrize("first", ["blank", "one step", "one sample", "tiny", "plain"])
def test_time_first_rows(zero, first):
    model = Net(time_first, inner=nn.Linear(D, D), more=nn.Sequential(nn.Linear(D, 2), nn.Linear(2, D, bias=False)))
    (x, y), (x2, y2) = data(), data()
    start = {
        "blank": (0 * x, y),
        "one step": (x[:, :1], y),
        "one sample": (x[:1], y[:1]),
        "tiny": (1e-9 * x, y),
        "plain": (x2, y2),
    }
    for name, p in model.named_parameters():
        if zero == "all" or name.startswith(zero):
            nn.init.zeros_(p)
    assert_exact(model, [start[first], (x, y), (x2[:3], y2[:3]), (x2[:, :3], y2)])


def test_layers_that_wake_up_between_batches():
    """Zero head and zero gate at the first batch tell nothing about the rows behind them."""
    model = Net(time_first, inner=nn.Linear(D, D), more=nn.Linear(D, D)).eval()
    for p in model.parameters():
        nn.init.zeros_(p)
    batches, expected = [data(), data()], []
    accumulator = DiagonalAccumulator(model)
    for batch in batches:
        accumulator.update(*batch)
        expected.append(reference(model, [batch]))
        for p in model.parameters():
            nn.init.normal_(p)
    batches.append(data())
    accumulator.update(*batches[-1])
    expected.append(reference(model, batches[-1:]))
    mean = {n: sum(e[n] for e in expected) / 3 for n in expected[0]}
    assert worst(accumulator.result(), mean) <= 1e-9


def chosen(m, h):
    mask = h.detach()[..., 0] > 0
    z = torch.zeros_like(h)
    z[mask] = m.inner(h[mask])
    z[~mask] = m.more(h[~mask])
    return z


def experts(m, h):
    """One expert for each sample, by the sign of its first input."""
    kind, out = (h.detach()[:, 0, 0] > 0).long(), torch.zeros_like(h)
    for k, expert in enumerate((m.inner, m.more)):
        rows = torch.where(kind == k)[0]
        if len(rows):
            out = out.index_add(0, rows, expert(h[rows]))
    return out


def longest_first(m, h):
    order = h.detach().sum((1, 2)).argsort()
    return m.more(m.inner(h[order])[order.argsort()])


def packed(m, h):
    lengths = (h.detach()[:, :, 0] > 0).sum(1).clamp_min(1)
    rows = pack_padded_sequence(h, lengths.cpu(), batch_first=True, enforce_sorted=False)
    rows = rows._replace(data=m.inner(rows.data))
    return pad_packed_sequence(rows, batch_first=True, total_length=T)[0]


def packed_shared(m, h):
    rows = pack_padded_sequence(h, [T] * len(h), batch_first=True)
    out = m.inner(torch.tanh(m.inner(rows.data)))
    return pad_packed_sequence(rows._replace(data=out), batch_first=True)[0]


def paired(m, h):
    """Rows of neighboring steps, merged time first."""
    b = len(h)
    pairs = torch.stack([h[:, :-1], h[:, 1:]], 1).permute(2, 1, 0, 3).reshape(-1, D)
    return m.inner(torch.tanh(m.inner(pairs))).view(T - 1, 2, b, D).permute(2, 0, 1, 3).flatten(1, 2)


@pytest.mark.parametrize("how", [chosen, experts, longest_first, packed, packed_shared, paired])
def test_rows_that_are_chosen_or_sorted(how):
    model = Net(how, inner=nn.Linear(D, D), more=nn.Linear(D, D))
    batches = [data() for _ in range(6)]
    batches[0][0][:, 0, 0] = 9.0  # the first batch needs one expert only
    assert_exact(model, batches)


class OnePerSample(nn.Module):
    """Masks that choose one step of every sample first, and later as many in other places."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, C)

    def forward(self, x, mask):
        h = self.embed(x)
        z = torch.zeros_like(h)
        z[mask] = self.inner(torch.tanh(self.inner(h[mask])))
        return self.head(torch.tanh(h + z).mean(1))


def test_masks_of_equal_size():
    even, uneven = torch.zeros(2, N, T, dtype=torch.bool)
    even[:, 0] = True
    uneven[0, :3] = uneven[2, :2] = True
    (x, y), (x2, y2) = data(), data()
    assert_exact(OnePerSample(), [((x, even), y), ((x2, uneven), y2), ((x2, even), y2)])


def test_norms_of_sorted_rows():
    """Sums over samples would hide that rows are another sample's."""
    model, (x, y) = Net(longest_first, inner=nn.Linear(D, D), more=nn.Linear(D, D)), data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = per_sample_gradient_norms(model, x, y)
    for i in range(N):
        value = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        for (name, _), g in zip(model.named_parameters(), gradients, strict=True):
            if g is not None:
                torch.testing.assert_close(found[name][i], g.norm(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("expected_expert", [0, 1])
def test_an_expert_that_the_first_batch_never_meets(expected_expert):
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts, self.head = nn.ModuleList([nn.Linear(D, D) for _ in range(2)]), nn.Linear(D, C)

        def forward(self, x):
            expert = self.experts[int(x[0, 0, 0] > 0)]  # the whole batch goes one way
            return self.head(torch.tanh(expert(x)).mean(1))

    batches = []
    for sign in (1, -1, 1, -1):
        x, y = data()
        x[:, 0, 0] = sign * (-1) ** expected_expert * x[:, 0, 0].abs()
        batches.append((x, y))
    assert_exact(Routed(), batches)


# Samples that influence each other.


class Coupled(nn.Module):
    def __init__(self, how, strength, offset):
        super().__init__()
        self.how, self.strength = how, strength
        self.first, self.last, self.gate = nn.Linear(D, D), nn.Linear(D, C), nn.Parameter(torch.zeros(D))
        with torch.no_grad():
            self.last.bias += offset

    def forward(self, x):
        h = torch.tanh(self.first(x.mean(1)))
        if self.how == "mean":
            h = h - self.strength * h.mean(0)
        elif self.how == "neighbor":
            h = h + self.strength * h.roll(1, 0)
        elif self.how == "gate":
            h = h + self.gate * h.mean(0)
        elif self.how == "noise":
            h = h + self.strength * torch.randn_like(h)
        elif self.how == "dropout":
            h = F.dropout(h, self.strength)
        elif self.how == "rare mask":
            h = h * (torch.rand(len(h), 1) >= self.strength)
        elif self.how == "statistics":
            h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
        elif self.how == "place in the batch":
            h = h + self.strength * torch.arange(len(h))[:, None]
        elif self.how == "largest":
            h = h / (1 + self.strength * h.abs().max())
        return self.last(h)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    ("how", "strength"),
    [
        *[(how, s) for how in ("mean", "neighbor", "noise", "largest") for s in (1.0, 1e-4)],
        *[(how, s) for how in ("dropout", "rare mask") for s in (0.5, 1e-7)],
        ("gate", 0),
        ("statistics", 0),
        ("place in the batch", 1e-3),
    ],
)
def test_samples_that_influence_each_other(how, strength, offset):
    model, (x, y) = Coupled(how, strength, offset), data()
    state = torch.get_rng_state()
    for estimate in (
        lambda: fisher_diagonal(model, [(x, y)]),
        lambda: fisher_diagonal(model, [(x, y)], labels="expected"),
        lambda: kfac(model, [(x, y)]),
        lambda: per_sample_gradient_norms(model, x, y),
    ):
        with pytest.raises(ValueError, match=r"of its batch.*batch_mean"):
            estimate()
    if how not in ("noise", "dropout", "rare mask"):
        assert torch.equal(state, torch.get_rng_state())
    assert fisher_diagonal(model, [(x, y)], gradients="batch_mean").trace() > 0


@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-4])
@pytest.mark.parametrize("how", ["mean", "neighbor", "largest"])
def test_weak_influence_in_single_precision(how, strength):
    """Too small for float32 to tell from rounding; a copy in float64 does, and the model stays as it is."""
    model, (x, y) = Coupled(how, strength, 0.0).float(), data()
    with pytest.raises(ValueError, match="of its batch"):
        fisher_diagonal(model, [(x.float(), y)])
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("neutral", [True, False])
def test_refused_batches_leave_nothing_in_the_sums(neutral):
    """Batches of a batch go through at once; where that is refused, after gradients arrived perhaps, they go apart."""

    class Centered(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(D, D), nn.Linear(D, C)

        def forward(self, x):
            h = torch.tanh(self.first(x.mean(1)))
            mean = h.mean(0)
            return self.last(h + mean - mean.detach() if neutral else h - mean)

    model, (x, y) = Centered(), data(7)
    found = fisher_diagonal(model, [(x, y), (x, y)], gradients="batch_mean", group=3)
    apart = list(zip(x.split(3), y.split(3), strict=True))
    assert worst(found, dict(fisher_diagonal(model, apart, gradients="batch_mean").items())) <= 1e-12
    accumulator, other = DiagonalAccumulator(model), Net(lambda m, h: h)
    with pytest.raises(ValueError, match="of its batch"):
        accumulator.update(x, y)
    assert all((s == 0).all() for s in accumulator.sums().values())
    assert_exact(other, [(x, y)])


def test_in_batch_logits():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(D, D), nn.Linear(D, D)

        def forward(self, x):
            return self.left(x[:, 0]) @ self.right(x[:, 1]).T

    x, _ = data()
    with pytest.raises(ValueError, match="of its batch"):
        fisher_diagonal(Pairs(), [(x, torch.arange(N))])


def test_draws_that_decide_nothing_are_no_reason_to_refuse():
    """Layer drop draws in eval mode too, and does not use it."""
    model = Net(lambda m, h: h * m.w if torch.rand([]) < 0.5 and m.training else h + m.w)
    assert_exact(model, [data(), data()])


def test_random_generator_is_where_a_plain_network_leaves_it():
    model, batch = Net(lambda m, h: F.dropout(h, 0.5, m.training) * m.w), data()
    state = torch.get_rng_state()
    for labels in ("empirical", "sampled"):
        fisher_diagonal(model, [batch, batch], labels=labels)
    assert torch.equal(state, torch.get_rng_state())


def test_values_handed_out_in_the_order_of_the_batch():
    """masked_scatter goes on in its source where the sample before has stopped."""
    source = torch.arange(N * T * D).reshape(N, T, D) / 100
    model = Net(lambda m, h: h.masked_scatter(h > 0, source * m.w))
    with pytest.raises(ValueError, match="of its batch"):
        fisher_diagonal(model, [data()])


# When a way is verified.


def verifications(monkeypatch):
    calls, wrong = [], verification.Verification.wrong
    monkeypatch.setattr(verification.Verification, "wrong", lambda *a: calls.append(0) or wrong(*a))
    return calls


def test_a_way_is_verified_once_and_now_and_then(monkeypatch):
    calls, model = verifications(monkeypatch), Net(lambda m, h: h * m.w)
    accumulator = DiagonalAccumulator(model)
    for _ in range(20):
        accumulator.update(*data())
    assert len(calls) == 1
    for n, t in ((3, T), (N, 2), (N, T), (3, T)):  # another batch size, another length, and what is known
        accumulator.update(*data(n, t))
    assert len(calls) == 3
    for _ in range(verification.NOW_AND_THEN + 1):
        accumulator.update(*data())
    assert len(calls) == 4


def test_a_gradient_of_zero_is_no_proof(monkeypatch):
    """A parameter that is written past the tape counts for nothing while a gate is shut."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.gate, self.head = nn.Parameter(torch.randn(D)), nn.Parameter(torch.zeros(1)), nn.Linear(D, C)

        def forward(self, x):
            h = x.clone()
            h[:, 0].copy_(self.w)
            return self.head(x.mean(1) + self.gate * torch.tanh(h).mean(1))

    monkeypatch.setattr("fisherexp.curvature.tape.Tape._lose", lambda self, handles: None)  # a tape that sees nothing
    model, batches = Gated(), [data() for _ in range(12)]
    accumulator, expected = DiagonalAccumulator(model), []
    for i, batch in enumerate(batches):
        if i == 10:
            nn.init.ones_(model.gate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if i == 10:  # batches 6 to 10 were not verified, so nothing added since can be trusted
                with pytest.raises(RuntimeError, match="no longer agree"):
                    accumulator.update(*batch)
                return
            accumulator.update(*batch)
        expected.append(reference(model, [batch]))


def test_a_change_that_is_noticed_late_is_no_silent_number(monkeypatch):
    """The layout of a way is spoiled behind the engine's back: the next verification refuses what was added."""
    monkeypatch.setattr(verification, "NOW_AND_THEN", 4)
    model = Net(lambda m, h: h * m.w)
    accumulator = DiagonalAccumulator(model)
    accumulator.update(*data())
    whole = linear.Linear.sketched
    monkeypatch.setattr(linear.Linear, "sketched", lambda self, *a: 2 * whole(self, *a))
    for _ in range(4):
        accumulator.update(*data())
    with pytest.raises(RuntimeError, match="no longer agree"):
        accumulator.update(*data())


def test_a_wrong_rule_of_a_user_is_found():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.rand(D) + 0.5)

        def forward(self, x):
            return x * self.factor

    register_rule(Scale, lambda module, inputs, g: {"factor": 2 * (g * inputs[0]).sum(1)})
    assert_exact(Net(lambda m, h: m.scale(h), scale=Scale()), [data(), data()])


@pytest.mark.parametrize("share", [following.WHOLE, 0])
@pytest.mark.parametrize("how", [time_first, chosen, experts, longest_first, packed_shared, paired])
def test_large_networks_are_verified_by_some_of_their_samples(how, share, monkeypatch):
    monkeypatch.setattr(following, "WHOLE", share)
    model = Net(how, inner=nn.Linear(D, D), more=nn.Linear(D, D))
    nn.init.zeros_(model.head.weight)
    assert_exact(model, [data(17), data(3), data(1), data(17), data(2)])


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_refused_by_a_sentence(reentrant):
    def through(m, h):
        return checkpoint(lambda z: torch.tanh(m.inner(z)), h, use_reentrant=reentrant)

    model, batch = Net(through, inner=nn.Linear(D, D)), data()
    with pytest.raises(RuntimeError, match=r"gradient checkpointing.*turn it off"):
        fisher_diagonal(model, [batch])


# Layers whose gradient is not that of the sample alone, or whose weight changes.


@pytest.mark.parametrize("options", [{"max_norm": 0.5}, {"scale_grad_by_freq": True}, {"padding_idx": 1}])
def test_embeddings(options):
    model = nn.Sequential(nn.Embedding(7, D, **options), nn.Flatten(), nn.Linear(T * D, C))
    batches = [(torch.randint(7, (N, T)), torch.randint(C, (N,))) for _ in range(2)]
    for x, _ in batches:
        model(x)
    assert_exact(model, batches)


def test_embedding_bag():
    model = nn.Sequential(nn.EmbeddingBag(7, D, mode="sum"), nn.Tanh(), nn.Linear(D, C))
    assert_exact(model, [(torch.randint(7, (N, T)), torch.randint(C, (N,)))])


def test_complex_parameters_are_refused_by_name():
    model = Net(lambda m, h: (h.to(torch.complex128) @ m.c).abs())
    model.c = nn.Parameter(torch.randn(D, D, dtype=torch.complex128))
    with pytest.raises(ValueError, match="'c' is complex"):
        fisher_diagonal(model, [data()])
    assert fisher_diagonal(model, [data()], parameters=["w"]).names == ["w"]


def test_modulated_convolution():
    class Modulated(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(4))
            self.style, self.head = nn.Linear(3, 2), nn.Linear(4, C)

        def forward(self, image, z):
            b = len(image)
            w = (self.weight * self.style(z)[:, None, :, None, None]).reshape(-1, 2, 3, 3)
            h = F.conv2d(image.reshape(1, -1, 6, 6), w, self.bias.repeat(b), groups=b).view(b, 4, 4, 4)
            return self.head(h.relu().mean((2, 3)))

    y = torch.randint(C, (N,))
    assert_exact(Modulated(), [((torch.randn(N, 2, 6, 6), torch.randn(N, 3)), y)])


# Invariances.


@pytest.mark.parametrize("labels", ["empirical", "expected"])
@pytest.mark.parametrize("how", [time_first, chosen])
def test_batch_size_and_partition_do_not_matter(how, labels):
    model = Net(how, inner=nn.Linear(D, D), more=nn.Linear(D, D))
    x, y = data(12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = fisher_diagonal(model, [(x, y)], labels=labels)
        for size in (1, 2, 5):
            parts = list(zip(x.split(size), y.split(size), strict=True))
            assert worst(fisher_diagonal(model, parts, labels=labels), dict(whole.items())) <= 1e-9
        for name in whole:
            alone = fisher_diagonal(model, [(x, y)], labels=labels, parameters=[name])
            torch.testing.assert_close(alone[name], whole[name], rtol=1e-9, atol=1e-15)


def test_factors_do_not_depend_on_the_batch_size():
    model = nn.Sequential(nn.Linear(D, 5), nn.ReLU(inplace=True), nn.Linear(5, C))
    x, y = torch.randn(12, D), torch.randint(C, (12,))
    whole, parts = kfac(model, [(x, y)]), kfac(model, list(zip(x.split(5), y.split(5), strict=True)))
    for name, factor in whole.factors.items():
        torch.testing.assert_close(parts.factors[name].a, factor.a)
        torch.testing.assert_close(parts.factors[name].b, factor.b)


def test_factors_cover_all_batches_or_are_left_out():
    """A layer that one batch uses twice has no factor, not one of the other batches."""

    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, C)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            return self.head(self.b(h if x.shape[1] == T else self.a(h)).mean(1))

    x, y = data()
    found = kfac(Again(), [(x, y), (x[:, :3], y)])
    assert set(found.factors) == {"b.weight", "head.weight"}
    assert set(found.skipped) == {"a.weight", "a.bias"}


# Labels.


@pytest.mark.parametrize("size", [1, C, N])
def test_float_class_labels_are_refused(size):
    model, (x, y) = Net(lambda m, h: h * m.w), data(size)
    for call in (fisher_diagonal, kfac):
        for wrong in (y.double(), y.double()[:, None], F.one_hot(y, C), y.bool(), y[:, None], y[: size - 1]):
            with pytest.raises(ValueError, match="targets"):
                call(model, [(x, wrong)])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        fisher_diagonal(model, [(x, y + C)])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        fisher_diagonal(model, [(x, y * 0 - 1)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integer_labels_of_any_width(dtype):
    model, (x, y) = Net(lambda m, h: h * m.w), data()
    assert worst(fisher_diagonal(model, [(x, y.to(dtype))]), reference(model, [(x, y)])) <= 1e-9


@pytest.mark.parametrize("size", [1, C, N])
def test_one_hot_and_soft_targets(size):
    model, (x, y) = Net(lambda m, h: h * m.w), data(size)
    assert worst(fisher_diagonal(model, [(x, F.one_hot(y, C).double())]), reference(model, [(x, y)])) <= 1e-9
    soft = torch.rand(size, C).softmax(-1)
    assert worst(fisher_diagonal(model, [(x, soft)]), reference(model, [(x, soft)])) <= 1e-9


@pytest.mark.parametrize("ignored", [[1], [0, 3], [4]])
def test_ignored_samples_do_not_count(ignored):
    model, (x, y) = Net(lambda m, h: h * m.w), data()
    kept = [i for i in range(N) if i not in ignored]
    masked = y.clone()
    masked[ignored] = -100
    found = fisher_diagonal(model, [(x, masked)])
    assert found.count == len(kept)
    assert worst(found, reference(model, [(x[kept], y[kept])])) <= 1e-9
    factors, right = kfac(model, [(x, masked)]), kfac(model, [(x[kept], y[kept])])
    torch.testing.assert_close(factors.factors["head.weight"].b, right.factors["head.weight"].b)
    mean = F.cross_entropy(model(x), masked)
    gradients = torch.autograd.grad(mean, list(model.parameters()))
    squares = {n: g.square() for (n, _), g in zip(model.named_parameters(), gradients, strict=True)}
    assert worst(fisher_diagonal(model, [(x, masked)], gradients="batch_mean"), squares) <= 1e-9
    norms = per_sample_gradient_norms(model, x, masked)["head.weight"]
    assert (norms[ignored] == 0).all()
    assert (norms[kept] > 0).all()


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(7, D), nn.Linear(D, D), nn.Linear(D, 7)

    def forward(self, tokens):
        h = self.embed(tokens)
        return self.head(torch.tanh(self.mix(h.cumsum(1))))


def test_padding_per_sequence_and_per_token():
    model, tokens, targets = Words(), torch.randint(7, (N, T)), torch.randint(7, (N, T))
    lengths = [6, 3, 1, 4, 0]  # the last sequence has nothing to predict
    for n, length in enumerate(lengths):
        targets[n, length:] = -100
    some = slice(0, 4)
    by_sequence = reference(model, [(tokens[some], targets[some])], lambda z, y: F.cross_entropy(z.mT, y))
    found = fisher_diagonal(model, [(tokens, targets)], loss="sequence")
    assert found.count == 4
    assert worst(found, by_sequence) <= 1e-9
    by_token = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for n, length in enumerate(lengths):
        for t in range(length):
            value = F.cross_entropy(model(tokens[n : n + 1])[0, t], targets[n, t])
            for (name, _), g in zip(
                model.named_parameters(), torch.autograd.grad(value, list(model.parameters())), strict=True
            ):
                by_token[name] += g.square() / sum(lengths)
    found = fisher_diagonal(model, [(tokens, targets)], loss="token")
    assert found.count == sum(lengths)
    assert worst(found, by_token) <= 1e-9


@pytest.mark.parametrize("loss", ["sequence", "token"])
@pytest.mark.parametrize("wrong", ["float", "negative", "large", "flat"])
def test_wrong_token_targets_are_refused(loss, wrong):
    model, tokens = Words(), torch.randint(7, (N, T))
    targets = {
        "float": tokens.double(),
        "negative": tokens - 7,
        "large": tokens + 7,
        "flat": tokens.flatten(),
    }[wrong]
    with pytest.raises(ValueError, match="targets"):
        fisher_diagonal(model, [(tokens, targets)], loss=loss)


def test_flattened_outputs_are_refused():
    """(N T, C) outputs have rows that are no samples."""
    model = Net(lambda m, h: h * m.w)
    model.forward = lambda x: model.head(model.embed(x)).flatten(0, 1)
    x, _ = data()
    with pytest.raises(ValueError, match="for a batch of 5 samples"):
        fisher_diagonal(model, [(x, torch.randint(C, (N * T,)))])


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: (z[:, :1] - y).square().mean(1),
        lambda z, y: F.cross_entropy(z, y, reduction="none") / z.detach().abs().mean(),
    ],
)
def test_losses_that_mix_samples_are_refused(loss):
    model, (x, y) = Net(lambda m, h: h * m.w), data()
    with pytest.raises(ValueError, match=r"other samples of its batch"):
        fisher_diagonal(model, [(x, y)], loss=loss)


def test_regression_targets_must_have_the_shape_of_outputs():
    model, (x, y) = Net(lambda m, h: h * m.w), data()
    model.head = nn.Linear(D, 1)
    with pytest.raises(ValueError, match="shape of outputs"):
        fisher_diagonal(model, [(x, y.double())], loss="gaussian")


class Positioned(nn.Module):
    """Expands its positions for several samples only, as transformers does with those it makes itself."""

    def __init__(self, learned):
        super().__init__()
        self.head, at = nn.Linear(D, C), torch.randn(1, T, D)
        if learned:
            self.at = nn.Parameter(at)
        else:
            self.register_buffer("at", at)
        self.seen = []  # sizes of batches

    def forward(self, x):
        self.seen.append(len(x))
        at = self.at if len(x) == 1 else self.at.expand(len(x), -1, -1)
        return self.head((x + at).tanh().mean(1))


@pytest.mark.parametrize(("learned", "looks"), [(True, [1, N, 2, 2, 3]), (False, [1])])
def test_a_sample_alone_may_take_a_path_of_its_own(monkeypatch, learned, looks):
    """Of a large problem one sample is looked at. Where parameters take another path with it, which the batch itself
    shows, two show the batch's; what is prepared without parameters may differ."""
    monkeypatch.setattr(following, "WHOLE", 0)
    model, batches = Positioned(learned), [data() for _ in range(2)]
    expected = reference(model, batches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.seen.clear()
        found = fisher_diagonal(model, batches)
    assert worst(found, expected) <= 1e-9
    assert model.seen == [*looks, N, N]
