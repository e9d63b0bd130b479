"""Hessian and Gauss-Newton products against dense matrices in float64, on plain and attention models."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature.lanczos import extreme_eigenpairs
from fisherexp.curvature.products import (
    evaluation,
    ggn_operator,
    ggn_product,
    hessian_operator,
    hessian_product,
)
from fisherexp.curvature.vectors import ravel, unravel


class Tied(nn.Module):
    """Token model whose embedding is also its head, with torch's fused-attention function."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        q, k, v = self.qkv(self.embedding(tokens)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True))


class Attention(nn.Module):
    """torch's own encoder layer, with dropout and its inference fast path."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layer(x.unflatten(1, (2, 4))).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.lstm(x.unflatten(1, (2, 4)))[0][:, -1])


def token_losses(logits, targets):
    return F.cross_entropy(logits.mT, targets, reduction="none")


def build(name, sizes=(5, 3)):
    """Model, loss and batches; every model ends up in train mode, which products must not use."""
    torch.manual_seed(0)
    model = {
        "mlp": lambda: nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 3)),
        "cnn": lambda: nn.Sequential(
            nn.Unflatten(1, (2, 2, 2)),
            nn.Conv2d(2, 3, 2),
            nn.BatchNorm2d(3),
            nn.Flatten(),
            nn.GELU(),
            nn.Linear(3, 3),
        ),
        "attention": Attention,
        "tied": Tied,
        "lstm": Recurrent,
    }[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    if name == "tied":
        batches = [(torch.randint(0, 5, (n, 4)), torch.randint(0, 5, (n, 4))) for n in sizes]
        return model, token_losses, batches
    batches = [(torch.randn(n, 8).double(), torch.randint(0, 3, (n,))) for n in sizes]
    return model, F.cross_entropy, batches


def functional_model(model, inputs):
    parameters = dict(model.named_parameters())
    like = {n: p.detach() for n, p in parameters.items()}

    def outputs(flat):
        return torch.func.functional_call(model, unravel(flat, like), (inputs,))

    return outputs, ravel(like)


def dense(model, loss, batches, gauss_newton):
    """Dense matrix of the mean loss over the concatenated batches, in eval mode."""
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with evaluation(model, dict(model.named_parameters())):
        outputs, theta = functional_model(model, inputs)
        if not gauss_newton:
            return torch.autograd.functional.hessian(lambda t: loss(outputs(t), targets).mean(), theta)
        z = outputs(theta).detach()
        jacobian = torch.autograd.functional.jacobian(outputs, theta).reshape(z.numel(), -1)
        curvature = torch.autograd.functional.hessian(lambda z: loss(z, targets).mean(), z)
        return jacobian.T @ curvature.reshape(z.numel(), -1) @ jacobian


def random_vector(model):
    return {n: torch.randn_like(p) for n, p in model.named_parameters()}


@pytest.mark.parametrize("gauss_newton", [False, True], ids=["hessian", "ggn"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "attention", "tied", "lstm"])
def test_product_equals_dense_matrix(name, gauss_newton):
    model, loss, batches = build(name)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    vector = random_vector(model)
    result = (ggn_product if gauss_newton else hessian_product)(model, loss, iter(batches), vector)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    matrix = dense(model, loss, batches, gauss_newton)
    torch.testing.assert_close(ravel(result), matrix @ ravel(vector), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("product", [hessian_product, ggn_product])
def test_timm_vision_transformer(product):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(
        img_size=4, patch_size=2, in_chans=1, num_classes=3, embed_dim=8, depth=1, num_heads=2, mlp_ratio=1
    ).double()
    batches = [(torch.randn(4, 1, 4, 4).double(), torch.randint(0, 3, (4,)))]
    vector = random_vector(model)
    matrix = dense(model, F.cross_entropy, batches, product is ggn_product)
    result = product(model, "cross_entropy", batches, vector)
    torch.testing.assert_close(ravel(result), matrix @ ravel(vector), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("loss", ["cross_entropy", None, lambda z, y: F.cross_entropy(z, y, reduction="none")])
def test_loss_by_name_by_sample_and_by_mean_agree(loss):
    model, mean_loss, batches = build("mlp")
    vector = random_vector(model)
    expected = hessian_product(model, mean_loss, batches, vector)
    torch.testing.assert_close(hessian_product(model, loss, batches, vector), expected)


def test_weights_count_samples():
    model, _, [(x, y)] = build("mlp", sizes=(4,))
    vector = random_vector(model)
    weights = torch.tensor([2.0, 0.0, 1.0, 1.0]).double()
    repeated = hessian_product(model, None, [(x[[0, 0, 2, 3]], y[[0, 0, 2, 3]])], vector)
    parts = [(x[:2], y[:2], weights[:2]), (x[2:], y[2:], weights[2:])]
    torch.testing.assert_close(hessian_product(model, None, parts, vector), repeated)


def test_ggn_of_a_model_linear_in_its_parameters_is_the_hessian():
    model, loss, batches = nn.Linear(8, 3).double(), F.cross_entropy, build("mlp")[2]
    vector = random_vector(model)
    args = (model, loss, batches, vector)
    torch.testing.assert_close(ggn_product(*args), hessian_product(*args))


def test_vector_names_choose_the_block():
    model, loss, batches = build("mlp")
    vector = random_vector(model)
    masked = {n: v if n.startswith("3.") else torch.zeros_like(v) for n, v in vector.items()}
    block = hessian_product(model, loss, batches, {n: v for n, v in vector.items() if n.startswith("3.")})
    whole = hessian_product(model, loss, batches, masked)
    assert list(block) == ["3.weight", "3.bias"]
    torch.testing.assert_close(block, {n: whole[n] for n in block})


@pytest.mark.parametrize("product", [hessian_product, ggn_product])
def test_no_curvature_gives_zeros(product):
    model, _, batches = nn.Linear(8, 3).double(), None, build("mlp")[2]
    result = product(model, lambda z, y: z.sum(1), batches, random_vector(model))
    assert all((t == 0).all() for t in result.values())


@pytest.mark.parametrize("operator", [hessian_operator, ggn_operator])
@pytest.mark.parametrize("sizes", [(6,), (5, 3)], ids=["one batch", "two batches"])
def test_operator_drives_lanczos(operator, sizes):
    model, loss, batches = build("mlp", sizes)
    matrix = dense(model, loss, batches, operator is ggn_operator)
    a = operator(model, loss, iter(batches))
    pairs = extreme_eigenpairs(a, a.like, 2, tol=1e-8)
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(matrix).flip(0)[:2])
    assert set(pairs.vectors[0]) == {n for n, _ in model.named_parameters()}


def test_operator_follows_parameter_changes():
    model, loss, batches = build("mlp", sizes=(6,))
    a, vector = hessian_operator(model, loss, batches), random_vector(model)
    torch.testing.assert_close(a(vector), a(vector), rtol=0, atol=0)
    with torch.no_grad():
        model[0].weight.mul_(2)
    torch.testing.assert_close(a(vector), hessian_product(model, loss, batches, vector))


def test_frozen_parameters_are_skipped_and_stay_frozen():
    model, loss, batches = build("mlp")
    model[0].weight.requires_grad_(False)
    a = hessian_operator(model, loss, batches)
    assert "0.weight" not in a.like
    a(a.like)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]


def test_state_is_restored_after_an_exception():
    model, _, batches = build("cnn")
    before = {n: t.clone() for n, t in model.state_dict().items()}

    def broken(outputs, targets):
        raise KeyError("broken loss")

    with pytest.raises(KeyError):
        hessian_product(model, broken, batches, random_vector(model))
    assert all(m.training for m in model.modules())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("product", [hessian_product, ggn_product])
def test_the_batch_with_a_nan_is_named(product):
    model, loss, batches = build("mlp")
    batches[1][0][0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="batch 1"):
        product(model, loss, batches, random_vector(model))


class CareLess(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3).double()

    def forward(self, x):
        return F.dropout(self.layer(x), 0.5)  # training=True whatever the module's mode


@pytest.mark.parametrize(
    ("model", "options", "error", "match"),
    [
        (
            lambda: build("mlp")[0],
            {"eval_mode": False},
            RuntimeError,
            r"dropout in train mode \(2\).*eval_mode=True",
        ),
        (CareLess, {}, RuntimeError, r"training=self\.training"),
        (lambda: build("cnn")[0], {"eval_mode": False}, ValueError, "eval_mode=True"),
        (
            lambda: nn.Sequential(nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)).double(),
            {},
            ValueError,
            "BatchNorm1d '0'.*GroupNorm",
        ),
    ],
)
def test_functions_that_are_not_fixed_are_refused(model, options, error, match):
    model = model()
    with pytest.raises(error, match=match):
        hessian_product(model, F.cross_entropy, build("mlp")[2], random_vector(model), **options)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v, b: ({**v, "4.weight": v["3.weight"]}, b), "4.weight"),
        (lambda v, b: ({**v, "3.bias": torch.ones(2)}, b), "3.bias: shape"),
        (lambda v, b: (v, []), "no batches"),
        (lambda v, b: (v, [b[0][0]]), r"\(inputs, targets\)"),
    ],
)
def test_errors(change, match):
    model, loss, batches = build("mlp")
    vector, batches = change(random_vector(model), batches)
    with pytest.raises(ValueError, match=match):
        hessian_product(model, loss, batches, vector)
