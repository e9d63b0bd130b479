"""Oracles and small networks for the tests of the Fisher diagonal."""

import torch
from torch import nn
from torch.nn import functional as F


def one_at_a_time(model, inputs, targets, loss=F.cross_entropy, weights=None):
    """The definition: mean over samples of the squared gradient, one sample at a time through the plain model."""
    model.eval()
    named = dict(model.named_parameters())
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    n = len(targets)
    weights = torch.ones(n) if weights is None else weights
    for i in range(n):
        gradients = torch.autograd.grad(
            loss(model(inputs[i : i + 1]), targets[i : i + 1]), list(named.values()), allow_unused=True
        )
        for name, g in zip(named, gradients, strict=True):
            if g is not None:
                total[name] += weights[i] * g.square()
    return {name: t / weights.sum() for name, t in total.items()}


def worst(found, expected):
    """Largest relative error over parameters: max|a - b| / max|b| of each.

    Gradients that are zero by symmetry (a key's bias in attention) are rounding noise: what is 1e-20 of the
    largest entry of the model is compared with that.
    """
    assert set(found) == set(expected)
    noise = 1e-20 * max(e.abs().max() for e in expected.values())
    return max(((found[n] - e).abs().max() / e.abs().max().clamp_min(noise)).item() for n, e in expected.items())


class Shared(nn.Module):
    """One layer used twice, in-place activations and an in-place residual addition."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.first(x))
        out = self.twice(h)
        out += h
        return self.last(self.relu(self.twice(self.relu(out))))


class Residual(nn.Module):
    """Convolutions and batch norm as torchvision writes them: `out += identity`, then in-place ReLU."""

    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(width, 5)
        for bn in (self.bn1, self.bn2):
            nn.init.uniform_(bn.weight, 0.5, 1.5)
            nn.init.normal_(bn.running_mean)
            nn.init.uniform_(bn.running_var, 0.5, 2.0)

    def forward(self, x):
        identity = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(identity))
        out += identity
        return self.fc(self.relu(out).mean((2, 3)))


class TinyGPT(nn.Module):
    """Decoder with learned positions and one weight for embedding and output."""

    def __init__(self, vocabulary=13, width=8, length=7, tie="module"):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks, self.norm = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.LayerNorm(width)
        self.tie = tie
        if tie != "function":
            self.head = nn.Linear(width, vocabulary, bias=False)
        if tie == "module":
            self.head.weight = self.token.weight

    def forward(self, tokens):
        t = tokens.shape[1]
        x = self.token(tokens) + self.position(torch.arange(t))
        x = self.norm(self.blocks(x, mask=nn.Transformer.generate_square_subsequent_mask(t).to(x), is_causal=True))
        return x @ self.token.weight.T if self.tie == "function" else self.head(x)


class Tokens(nn.Module):
    """Class token, position embedding, layer scale, attention across sequences; sequence-first inside."""

    def __init__(self, width=8, classes=5):
        super().__init__()
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 9, width))
        self.scale = nn.Parameter(torch.randn(width))
        self.encoder = nn.TransformerEncoderLayer(width, 2, 16, batch_first=False)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mix = nn.Parameter(torch.randn(width, width))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.positions[:, : x.shape[1]]
        x = self.encoder(x.transpose(0, 1)).transpose(0, 1)
        x = x + self.scale * self.attention(x, x[:, 1:], x[:, 1:], need_weights=False)[0]
        x = x + torch.tanh(x @ self.mix) @ self.mix.T
        return self.head(x[:, 0])


class Windows(nn.Module):
    """Attention windows: samples are the outer part of a merged axis, and, transposed, the inner part."""

    def __init__(self):
        super().__init__()
        self.outer, self.inner, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6)
        self.conv, self.head = nn.Conv1d(6, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        b, t, d = x.shape
        x = torch.tanh(self.norm(self.outer(x.reshape(b * 2, t // 2, d))).reshape(b, t, d))
        x = torch.tanh(self.inner(x.transpose(0, 1).reshape(t * b, d)).reshape(t, b, d).transpose(0, 1))
        x = torch.tanh(self.conv(x.reshape(b * 2, t // 2, d).mT)).reshape(b, 2, 4, t // 2)
        return self.head(x.mean((1, 3)))
