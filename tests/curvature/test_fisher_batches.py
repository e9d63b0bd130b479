"""What one batch does not show: the Fisher is exact for the others as well, or refused by a sentence.

The oracle is plain autograd, one sample at a time.
"""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import fisher_diagonal, following, path

pytestmark = pytest.mark.usefixtures("in_double_precision")

N, T, D, C = 6, 5, 4, 3


def exact(model, batches):
    """Mean of squared gradients, sample by sample."""
    named = {n: p for n, p in model.eval().named_parameters() if p.requires_grad}
    total, count = {n: torch.zeros_like(p) for n, p in named.items()}, 0
    for x, y in batches:
        xs = x if isinstance(x, tuple) else (x,)
        for i in range(len(y)):
            value = F.cross_entropy(model(*(t[i : i + 1] for t in xs)), y[i : i + 1])
            for n, g in zip(named, torch.autograd.grad(value, list(named.values()), allow_unused=True), strict=True):
                total[n] += 0 if g is None else g.square()
            count += 1
    return {n: t / count for n, t in total.items()}


def error(found, expected):
    assert set(found) == set(expected)
    return max(((found[n] - e).abs().max() / e.abs().max()).item() for n, e in expected.items())


class TimeFirstOrNot(nn.Module):
    """Lays rows of the batch one way or another, by a value of the batch: the result is the same."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(D, D), nn.Linear(D, C)

    def forward(self, x):
        b, t, d = x.shape
        if x[0, 0, 0] > 0:
            return self.head(torch.tanh(self.embed(x.transpose(0, 1).reshape(t * b, d)).view(t, b, d)).mean(0))
        return self.head(torch.tanh(self.embed(x.reshape(b * t, d)).view(b, t, d)).mean(1))


def signed(signs, t):
    for sign in signs:
        x = torch.randn(N, t, D)
        x[:, 0, 0] = sign * x[:, 0, 0].abs()
        yield x, torch.randint(C, (N,))


@pytest.mark.parametrize("signs", [(1, -1, 1), (-1, -1, 1, -1)])
@pytest.mark.parametrize("t", [T, N])
def test_layouts_that_change_at_equal_shapes(t, signs, monkeypatch):
    model, batches = TimeFirstOrNot(), list(signed(signs, t))
    assert error(fisher_diagonal(model, batches), exact(model, batches)) < 1e-9
    monkeypatch.setattr(path, "_axes_of", lambda kind: [])  # the control: both ways have the same operations
    assert error(fisher_diagonal(model, batches), exact(model, batches)) > 1e-2


class IndexFirst(torch.autograd.Function):
    """Rows by an index that a function of one's own keeps."""

    @staticmethod
    def forward(ctx, h, index):
        ctx.index = index
        return h[index]

    @staticmethod
    def backward(ctx, g):
        return torch.zeros_like(g).index_add(0, ctx.index, g), None


class ListFirst(IndexFirst):
    """And by numbers."""

    @staticmethod
    def forward(ctx, h, order):
        ctx.index = order.tolist()
        return h[order]

    @staticmethod
    def backward(ctx, g):
        return torch.zeros_like(g).index_add(0, torch.tensor(ctx.index), g), None


def written(h, order):
    z = torch.zeros_like(h)
    for row, place in zip(h, order.argsort().tolist(), strict=True):
        z[place] = row
    return z


def one_hot(order):
    return F.one_hot(order, len(order)).double()


MOVES = {  # rows h[order]
    "embedding": lambda h, order: F.embedding(order, h),
    "embedding bag": lambda h, order: F.embedding_bag(order, h, torch.arange(len(h)), mode="sum"),
    "index_reduce": lambda h, order: torch.ones_like(h).index_reduce(0, order.argsort(), h, "prod"),
    "product": lambda h, order: one_hot(order) @ h,
    "batched product": lambda h, order: torch.einsum("nm,md->nd", one_hot(order), h),
    "sparse product": lambda h, order: torch.sparse.mm(one_hot(order).to_sparse(), h),
    "compressed rows": lambda h, order: one_hot(order).to_sparse_csr() @ h,
    "parts": lambda h, order: torch.stack([h.unbind(0)[i] for i in order.tolist()]),
    "lists": lambda h, order: torch.cat([h.split(1)[i] for i in order.tolist()]),
    "turned": lambda h, order: torch.rot90(h[:, None], 2 * int(order[0] > 0), (0, 1))[:, 0],
    "written": written,
    "of one's own": IndexFirst.apply,
    "of one's own, by numbers": ListFirst.apply,
}


class Sorted(nn.Module):
    """A layer that meets the samples once as they are and once in an order of their keys."""

    def __init__(self, move):
        super().__init__()
        self.move, self.embed, self.inner, self.head = move, nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, C)

    def forward(self, x, keys):
        h, order = self.embed(x.mean(1)), keys.argsort()
        moved = self.move(torch.tanh(self.inner(self.move(h, order))), order.argsort())
        return self.head(moved + self.inner(h))


@pytest.mark.filterwarnings("ignore:.*(CSR|index_reduce|cannot be followed)")
@pytest.mark.parametrize("way", MOVES)
def test_rows_moved_as_never_before(way):
    """In order at first, which tells nothing about an order that comes later."""
    model, batches = Sorted(MOVES[way]), []
    for keys in (torch.arange(N), torch.arange(N), torch.arange(N).flip(0), torch.arange(N)):
        batches.append(((torch.randn(N, T, D), keys), torch.randint(C, (N,))))
    assert error(fisher_diagonal(model, batches), exact(model, batches)) < 1e-9


@pytest.mark.filterwarnings("ignore:.*cannot be followed")
def test_ragged_rows_of_equal_number():
    class Ragged(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(D, D), nn.Linear(D, C)

        def forward(self, x, lengths):
            rows = torch.cat([x[i, :length] for i, length in enumerate(lengths.tolist())])
            rows = self.inner(torch.tanh(self.inner(rows)))
            return self.head(torch.segment_reduce(rows, "sum", lengths=lengths))

    model, batches = Ragged(), []
    for lengths in ([3] * 4, [3] * 4, [2, 4, 5, 1], [3] * 4):
        batches.append(((torch.randn(4, 5, D), torch.tensor(lengths)), torch.randint(C, (4,))))
    assert error(fisher_diagonal(model, batches), exact(model, batches)) < 1e-9


@pytest.mark.filterwarnings("ignore:.*(has no rule|cannot be followed)")
def test_experts_that_all_samples_meet_at_first():
    """Experts whose places are given by a product, as many as samples: the first batch fills all of them in order."""

    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.experts = nn.Linear(D, D), nn.Parameter(torch.randn(2, D, D))
            self.shared, self.head = nn.Linear(D, D), nn.Linear(D, C)

        def forward(self, x, gate):
            chosen = gate > 0
            place = (chosen.long().cumsum(0) - 1).clamp_min(0)
            dispatch = F.one_hot(place, len(x)) * chosen[..., None].to(x.dtype)  # (samples, experts, places)
            h = torch.einsum("nec,nd->ecd", dispatch, self.embed(x.mean(1)))
            h = self.shared(torch.tanh(torch.bmm(h, self.experts)))
            return self.head(torch.einsum("nec,ecd->nd", dispatch * gate[..., None], h))

    model, batches = Routed(), []
    for kept in (torch.ones(N, 2), torch.ones(N, 2), torch.arange(2 * N).reshape(N, 2) % 3 > 0):
        batches.append(((torch.randn(N, T, D), torch.rand(N, 2).add(0.1) * kept), torch.randint(C, (N,))))
    assert error(fisher_diagonal(model, batches), exact(model, batches)) < 1e-9


@pytest.mark.filterwarnings("ignore:.*cannot be followed")
@pytest.mark.parametrize("which", range(N))
def test_as_many_rows_in_a_part_as_in_the_batch(which, monkeypatch):
    """A layer that seems to meet no samples in the batch, and in the next is left out: the head is met in its place."""

    class Flagged(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(D, D), nn.Linear(D, C)

        def forward(self, x):
            h, flagged = torch.zeros_like(x), x[..., 0] > 9
            if flagged.any():
                h[flagged] = torch.tanh(self.inner(x[flagged]))
            return self.head(x.sin().mean(1) + h.mean(1))

    monkeypatch.setattr(following, "WHOLE", 0)
    model, batches = Flagged(), [(torch.randn(N, T, D), torch.randint(C, (N,))) for _ in range(3)]
    batches[0][0][which, :2, 0] = batches[2][0][which, :2, 0] = 10.0
    assert error(fisher_diagonal(model, batches), exact(model, batches)) < 1e-9


class Encoder(nn.Module):
    """Torch's encoder, which leaves padding at 0 where its weights are frozen and evaluates it where they are not."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, 2, 8, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(D, C)

    def forward(self, x, padding):
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_layers_are_evaluated_as_the_model_does(frozen):
    model = Encoder().eval()
    lengths = torch.tensor([T, 3, 1, T, 2, 4])
    batch = (torch.randn(N, T, D), torch.arange(T) >= lengths[:, None]), torch.randint(C, (N,))
    trainable = exact(model, [batch])
    model.encoder.requires_grad_(not frozen)
    expected = exact(model, [batch]) if frozen else {n: e for n, e in trainable.items() if n.startswith("head")}
    found = fisher_diagonal(model, [batch], parameters=["head.weight", "head.bias"])
    assert error(found, expected) < 1e-9
    assert frozen == (error(found, {n: trainable[n] for n in expected}) > 1e-2)  # the control: it does matter


class Largest(nn.Module):
    """Divides by the largest activation of the batch, or goes on until the whole batch has converged."""

    def __init__(self, how):
        super().__init__()
        self.how, self.first, self.head = how, nn.Linear(D, D), nn.Linear(D, C)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        if self.how == "largest":
            h = h / h.detach().abs().max()
        for _ in range(50 if self.how == "until" else 0):
            if (h - h.tanh()).abs().max().item() < 0.1:
                break
            h = h.tanh()
        return self.head(h)


@pytest.mark.parametrize("n", [N, 40])
@pytest.mark.parametrize("how", ["largest", "until"])
def test_influence_without_a_gradient(how, n):
    """All samples of a small network are verified, which have the same largest value as the batch."""
    with pytest.raises(ValueError, match=r"outputs of a sample change with the other samples"):
        fisher_diagonal(Largest(how), [(torch.randn(n, D), torch.randint(C, (n,)))])


class NormInFloat32(nn.Module):
    """As language models have it: whatever the network's dtype."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(D, D), nn.Linear(D, C)

    def forward(self, x):
        h = torch.tanh(self.first(x)).float()
        return self.head((h * torch.rsqrt(h.square().mean(-1, keepdim=True))).to(x.dtype).mean(1))


def test_rounding_inside_a_network_is_that_of_its_coarsest_dtype():
    """In float64 such a network differs from itself by float32's rounding, which is no influence of other samples."""
    model, batch = NormInFloat32(), (torch.randn(40, T, D), torch.randint(C, (40,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor a reason to go one sample at a time
        found = fisher_diagonal(model, [batch])
    assert error(found, exact(model, [batch])) < 1e-4
