"""The model is left as it was, and what cannot be computed is refused with the remedy."""

import copy

import pytest
import torch
from fisher_oracles import Residual, Shared, one_at_a_time, worst
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import DiagonalAccumulator, Use, fisher_diagonal, register_rule, verification


def residual(n=5):
    torch.manual_seed(0)
    return Residual().double(), torch.randn(n, 3, 8, 8).double(), torch.randint(0, 5, (n,))


def state_of(model):
    return {
        "modes": [m.training for m in model.modules()],
        "tensors": {n: t.clone() for n, t in model.state_dict().items()},
        "identities": [id(p) for p in model.parameters()],
        "flags": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": sum(len(h) for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks)),
        "own": [sorted(k for k in m.__dict__ if not k.startswith("_")) for m in model.modules()],
    }


def assert_same(before, after):
    assert before["modes"] == after["modes"]
    assert before["identities"] == after["identities"]
    assert before["flags"] == after["flags"]
    assert before["hooks"] == after["hooks"]
    assert before["own"] == after["own"]
    assert all(torch.equal(t, after["tensors"][n]) for n, t in before["tensors"].items())
    for a, b in zip(before["grads"], after["grads"], strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


class Restless(nn.Module):
    """Changes one buffer and replaces another in every forward pass and, if told to, fails."""

    def __init__(self):
        super().__init__()
        self.inner = Residual()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("latest", torch.zeros(()))
        self.fail = False

    def forward(self, x):
        self.calls += 1
        self.latest = self.calls + 1
        out = self.inner(x)
        if self.fail:
            raise RuntimeError("on purpose")
        return out


@pytest.mark.parametrize("gradients", ["per_sample", "batch_mean"])
@pytest.mark.parametrize("fail", [False, True])
def test_model_is_left_as_it_was(gradients, fail):
    _, x, y = residual()
    model = Restless().double()
    model.train()
    model.inner.bn1.eval()
    model.inner.conv1.weight.requires_grad_(False)
    F.cross_entropy(model(x), y).backward()
    accumulator = DiagonalAccumulator(model, gradients=gradients)
    before = state_of(model)
    model.fail = fail
    before["own"] = state_of(model)["own"]
    if fail:
        with pytest.raises(RuntimeError, match="on purpose"):
            accumulator.update(x, y)
    else:
        accumulator.update(x, y)
    assert_same(before, state_of(model))


def test_update_inside_a_training_step():
    """An update between forward and backward disturbs neither; nor do no_grad or inference mode around it."""
    model, x, y = residual()
    other = copy.deepcopy(model)
    F.cross_entropy(other(x), y).backward()
    accumulator = DiagonalAccumulator(model)
    loss = F.cross_entropy(model(x), y)
    accumulator.update(x, y)
    with torch.no_grad():
        accumulator.update(x, y)
    with torch.inference_mode():
        accumulator.update(x * 1.0, y)
        assert torch.is_inference_mode_enabled()
    loss.backward()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=0)
    assert worst(accumulator.result(), one_at_a_time(model, x, y)) <= 1e-10


@pytest.mark.parametrize("fused", [False, True])
def test_batch_statistics_are_refused(fused):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.w, self.b = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return F.batch_norm(self.conv(x), None, None, self.w, self.b, training=True).mean((2, 3))

    model = Functional() if fused else nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    x = torch.randn(4, 3, 5, 5) if fused else torch.randn(4, 3)
    y = torch.randint(0, 4, (4,))
    with pytest.raises(ValueError, match=r"track_running_stats=True.*batch_mean"):
        fisher_diagonal(model, [(x, y)])
    assert fisher_diagonal(model, [(x, y)], gradients="batch_mean").trace() > 0


@pytest.mark.parametrize("affects_output", [True, False])
def test_coupled_samples(affects_output):
    """A mean over the batch that reaches the outputs is refused; an auxiliary loss beside them is harmless."""

    class Centered(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            h = torch.tanh(self.first(x))
            self.auxiliary = (self.last.weight * h.mean(0)).sum() + torch.einsum("ni,oi->", h, self.last.weight)
            return self.last(h - h.mean(0) if affects_output else h)

    torch.manual_seed(0)
    model, x, y = Centered().double(), torch.randn(5, 4).double(), torch.randint(0, 3, (5,))
    if affects_output:
        with pytest.raises(ValueError, match=r"other samples of its batch.*batch_mean"):
            fisher_diagonal(model, [(x, y)])
        return
    assert worst(fisher_diagonal(model, [(x, y)]), one_at_a_time(model, x, y)) <= 1e-10


def test_frozen_parameters_are_skipped_and_can_be_asked_for():
    model, x, y = residual()
    expected = one_at_a_time(model, x, y)
    model.conv1.weight.requires_grad_(False)
    found = fisher_diagonal(model, [(x, y)])
    assert "conv1.weight" not in found
    assert worst(found, {n: expected[n] for n in found}) <= 1e-10
    for chosen in (["conv1.weight"], [model.conv1.weight], "conv1.weight", lambda n: n == "conv1.weight"):
        asked = fisher_diagonal(model, [(x, y)], parameters=chosen)
        assert asked.names == ["conv1.weight"]
        assert worst(asked, {"conv1.weight": expected["conv1.weight"]}) <= 1e-10
    assert not model.conv1.weight.requires_grad


def test_nan_is_named_with_batch_and_layer():
    model, x, y = residual()
    bad = x.clone()
    bad[2, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"batch 1 .*layer 'conv1'"):
        fisher_diagonal(model, [(x, y), (bad, y)])


def test_infinite_gradient_with_finite_outputs_is_found():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            h = self.first(x)
            return self.last((h - h).abs().sqrt())  # derivative of the root at zero

    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"batch 0 .*'first\."):
        fisher_diagonal(Root(), [(torch.randn(4, 3), torch.zeros(4).long())])


def test_bfloat16_accumulates_in_float32():
    model, x, y = residual()
    reference = one_at_a_time(model, x, y)
    accumulator = DiagonalAccumulator(model.float())
    with torch.autocast("cpu", torch.bfloat16):
        accumulator.update(x.float(), y)
    found = accumulator.result()
    assert all(v.dtype == torch.float32 for _, v in found.items())
    assert abs(found.trace() / sum(v.sum() for v in reference.values()) - 1) < 0.05
    half = fisher_diagonal(model.bfloat16(), [(x.bfloat16(), y)])
    assert all(v.dtype == torch.float32 for _, v in half.items())
    assert abs(half.trace() / sum(v.sum() for v in reference.values()) - 1) < 0.1


def test_dropout_is_off_and_masks_of_modes_survive():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)).double().train()
    x, y = torch.randn(6, 4).double(), torch.randint(0, 3, (6,))
    found = fisher_diagonal(model, [(x, y)])
    assert model[1].training
    assert worst(found, one_at_a_time(model, x, y)) <= 1e-10


def test_state_can_be_reduced_and_restored():
    model, x, y = residual(6)
    ranks = [DiagonalAccumulator(model) for _ in range(2)]
    ranks[0].update(x[:4], y[:4])
    ranks[1].update(x[4:], y[4:])
    states = [r.sums() for r in ranks]
    reduced = {k: v + states[1][k] for k, v in states[0].items()}
    with DiagonalAccumulator(model) as restored:
        restored.load_sums(reduced)
    assert worst(restored.result(), one_at_a_time(model, x, y)) <= 1e-10
    assert restored.result().count == 6
    with pytest.raises(ValueError, match="does not fit"):
        restored.load_sums({"count": torch.zeros(())})
    with pytest.raises(ValueError, match="no samples"):
        DiagonalAccumulator(model).result()


def test_inputs_may_be_tuples_and_dicts():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, left, right):
            return type("Out", (), {"logits": self.a(left) + self.b(right)})()

    torch.manual_seed(0)
    model, left, right = Two().double(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    y = torch.randint(0, 4, (5,))
    joined = nn.Linear(5, 4).double()
    with torch.no_grad():
        joined.weight.copy_(torch.cat([model.a.weight, model.b.weight], 1))
        joined.bias.copy_(model.a.bias + model.b.bias)
    expected = one_at_a_time(joined, torch.cat([left, right], 1), y)["weight"]
    for inputs in ((left, right), {"right": right, "left": left}):
        found = fisher_diagonal(model, [(inputs, y)])
        torch.testing.assert_close(torch.cat([found["a.weight"], found["b.weight"]], 1), expected)


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_models_run_eagerly(whole):
    """The graph a compiler would make hides its operations; names and results are those of the model given."""
    model, x, y = residual()
    expected = one_at_a_time(model, x, y)
    if whole:
        compiled, prefix = torch.compile(model, backend=_no_compiler), "_orig_mod."
    else:
        model.conv2.compile(backend=_no_compiler)
        compiled, prefix = model, ""
    found = fisher_diagonal(compiled, [(x, y)])
    assert worst(found, {prefix + n: v for n, v in expected.items()}) <= 1e-10


def _no_compiler(graph, inputs):
    raise AssertionError("must not be compiled")


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_is_refused(reentrant):
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            inner = lambda h: torch.tanh(self.middle(h))  # noqa: E731
            return self.last(checkpoint(inner, self.first(x), use_reentrant=reentrant))

    model = Checkpointed()
    with pytest.raises(RuntimeError, match="turn it off"):
        fisher_diagonal(model, [(torch.randn(3, 4), torch.zeros(3).long())])
    assert all(p.grad is None for p in model.parameters())


def test_hidden_view_of_activations():
    """A `view` that torch functions do not show refuses the faster layout; then the plain one is used."""

    class Flatten(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.shape = x.shape
            return x.view(len(x), -1).clone()

        @staticmethod
        def backward(ctx, g):
            return g.reshape(ctx.shape)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(64, 5)

        def forward(self, x):
            return self.head(Flatten.apply(torch.tanh(self.conv(x))))

    torch.manual_seed(0)
    model, x, y = Net().double(), torch.randn(5, 3, 6, 6).double(), torch.randint(0, 5, (5,))
    assert worst(fisher_diagonal(model, [(x, y), (x, y)]), one_at_a_time(model, x, y)) <= 1e-10


class Scale(nn.Module):
    """A layer from outside, whose arithmetic torch functions cannot follow."""

    def __init__(self, width):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return _Scaled.apply(x, self.factor)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x, factor)
        return x * factor

    @staticmethod
    def backward(ctx, g):
        x, factor = ctx.saved_tensors
        return g * factor, (g * x).flatten(0, -2).sum(0)


def test_registered_rule_of_a_module(recwarn):
    calls = []

    def rule(module, inputs, g):
        calls.append(module)
        return {"factor": (g * inputs[0]).flatten(1, -2).sum(1)}

    register_rule(Scale, rule)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Scale(6), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)).double()
    x, y = torch.randn(5, 3, 4).double(), torch.randint(0, 3, (5,))
    before = state_of(model)
    found = fisher_diagonal(model, [(x, y)])
    assert_same(before, state_of(model))
    assert set(calls) == {model[1]}  # once for the squares, once to verify them
    assert not recwarn.list
    assert worst(found, one_at_a_time(model, x, y)) <= 1e-10


def test_registered_rule_of_a_function():
    class Squared(Use):
        """y = (w x)²; G_n = 2 w x² g."""

        def __init__(self, call, x, w):
            super().__init__(call, weight=w)
            self.save(x)

        def per_sample(self, slot, g, rows):
            x = self.inputs(g.dtype)[rows]
            return (2 * self.slots[slot].value * x.square() * g[rows]).reshape(g[rows].shape[0], -1, x.shape[-1]).sum(1)

    register_rule(squared_product, Squared)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.w, self.last = nn.Linear(4, 6), nn.Parameter(torch.rand(6)), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(squared_product(self.first(x), self.w))

    torch.manual_seed(0)
    model, x, y = Net().double(), torch.randn(5, 4).double(), torch.randint(0, 3, (5,))
    assert worst(fisher_diagonal(model, [(x, y)]), one_at_a_time(model, x, y)) <= 1e-10
    with pytest.raises(TypeError, match="subclass of Use"):
        register_rule(squared_product, lambda: None)


def squared_product(x, w):
    if torch.overrides.has_torch_function((x, w)):
        return torch.overrides.handle_torch_function(squared_product, (x, w), x, w)
    return (x * w).square()


def test_shared_module_with_expected_labels_twice():
    """State kept between backward passes of one batch does not leak into the next batch."""
    torch.manual_seed(0)
    model = Shared().double()
    x = torch.randn(6, 6).double()
    once = fisher_diagonal(model, [(x,)], labels="expected")
    twice = fisher_diagonal(model, [(x[:2],), (x[2:],)], labels="expected")
    assert worst(twice, dict(once.items())) <= 1e-12


class Rotated(nn.Module):
    """Stands in for a replaced part."""

    def forward(self, x):
        return torch.tanh(x.flip(-1))


def _replace_parameter(model):
    model[0].weight = nn.Parameter(torch.randn_like(model[0].weight))


def _replace_memory(model):
    model[0].weight.data = torch.randn_like(model[0].weight)


def _replace_buffer(model):
    model[1].running_mean = torch.randn_like(model[1].running_mean)


def _replace_part(model):
    model[2] = nn.Sequential(nn.Dropout(0.5), Rotated())


def _append_part(model):
    model[2].add_module("inside", nn.Dropout(0.5))
    model[2].forward = model[2].inside.forward


def _other_geometry(model):
    model[0].dilation = model[0].padding = (2, 2)


def _other_epsilon(model):
    model[1].eps = 0.5


def _assign_state(model):
    model.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()}, assign=True)


def _other_names_of_arguments(model):
    model[4].forward = lambda x: F.linear(x, bias=model[4].bias, weight=model[4].weight * 2)


def _frozen(model):
    model[0].weight.requires_grad_(False)


@pytest.mark.parametrize(
    "change",
    [
        _replace_parameter,
        _replace_memory,
        _replace_buffer,
        _replace_part,
        _append_part,
        _other_geometry,
        _other_epsilon,
        _assign_state,
        _other_names_of_arguments,
        _frozen,
        nn.Module.train,
    ],
)
def test_change_of_the_model_between_batches(change):
    """What is kept from batch to batch never outlives a change of the model."""
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
        .double()
        .eval()
    )
    x, y = torch.randn(7, 3, 6, 6).double(), torch.randint(0, 3, (7,))
    accumulator = DiagonalAccumulator(model)
    expected = []
    for rows in (slice(0, 4), slice(4, 7)):
        for _ in range(2):
            accumulator.update(x[rows], y[rows])
        mode, flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
        expected.append(one_at_a_time(model.requires_grad_(), x[rows], y[rows]))
        for module, training in zip(model.modules(), mode, strict=True):
            module.training = training
        for p, flag in zip(model.parameters(), flags, strict=True):
            p.requires_grad_(flag)
        if rows.start == 0:
            change(model)
    before, after = expected
    assert worst(accumulator.result(), {n: (4 * before[n] + 3 * after[n]) / 7 for n in before}) <= 1e-10
    assert model[0].weight.requires_grad == (change is not _frozen)
    assert model[1].training == (change is nn.Module.train)


def test_parameters_that_went_are_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    x, y = torch.randn(5, 4), torch.randint(0, 3, (5,))
    accumulator = DiagonalAccumulator(model)
    accumulator.update(x, y)
    model[0] = nn.Identity()
    with pytest.raises(ValueError, match=r"'0\.weight' was removed"):
        accumulator.update(x, y)


def test_nothing_of_a_batch_is_kept():
    """Uses recur from batch to batch; their inputs do not, and neither do the squares of an interrupted batch."""
    model, x, _ = residual()
    accumulator = DiagonalAccumulator(model, labels="expected")
    accumulator.update(x)
    for use in accumulator.engine.tape.recurring.values():
        assert use.saved is None
    seeds, calls = accumulator.loss.seeds, []

    def interrupted(*arguments):
        for seed in seeds(*arguments):
            calls.append(seed)
            if len(calls) == 3:
                raise KeyboardInterrupt
            yield seed

    accumulator.loss.seeds = interrupted
    with pytest.raises(KeyboardInterrupt):
        accumulator.update(x)
    accumulator.loss.seeds = seeds
    other = DiagonalAccumulator(model, labels="expected")
    other.update(x)
    before = {n: s.clone() for n, s in accumulator.sums().items()}
    accumulator.update(x)
    for name, total in other.sums().items():
        if name.startswith("sum."):
            torch.testing.assert_close(accumulator.sums()[name] - before[name], total, rtol=1e-9, atol=1e-12)


class NearlyZero(nn.Module):
    """Inputs of a ReLU so near to 0 that in float32 rounding, which goes with the size of the batch, decides."""

    def __init__(self, distance):
        super().__init__()
        self.first, self.last, self.distance = nn.Linear(5, 3), nn.Linear(3, 3), distance

    def forward(self, x):
        h = self.first(x)
        rounding = torch.finfo(h.dtype).eps * (1 if len(h) > 2 else -1)
        return self.last(h.tanh()) + (h - h.detach() + self.distance + rounding).relu()


def test_gradients_that_change_by_rounding_alone_are_taken_one_by_one():
    """In float64 no sample influences another. The control: at a distance of 0 they do in float64, too."""
    x, y = torch.randn(8, 5, dtype=torch.float32), torch.randint(3, (8,))
    model = NearlyZero(1e-9).to(torch.float32)
    with pytest.warns(UserWarning, match="run one by one"):
        found = fisher_diagonal(model, [(x, y)], labels="empirical")
    assert worst(found, one_at_a_time(model, x, y)) < 1e-5
    with pytest.raises(ValueError, match="gradients of a sample change with the other samples"):
        fisher_diagonal(NearlyZero(0.0).to(torch.float32), [(x, y)], labels="empirical")


@pytest.mark.filterwarnings("ignore:.*run one by one")
def test_a_verified_network_whose_gradients_change_by_rounding_goes_on(monkeypatch):
    """It is no proof that the batches before were wrong."""
    monkeypatch.setattr(verification, "NOW_AND_THEN", 1)
    model = NearlyZero(1.0).to(torch.float32)
    accumulator = DiagonalAccumulator(model, labels="empirical")
    batches = [(torch.randn(8, 5, dtype=torch.float32), torch.randint(3, (8,))) for _ in range(4)]
    expected = []
    for number, (x, y) in enumerate(batches):
        model.distance = 1.0 if number < 2 else 1e-9
        accumulator.update(x, y)
        expected.append(one_at_a_time(model, x, y))
    mean = {name: sum(each[name] for each in expected) / 4 for name in expected[0]}
    assert worst(accumulator.result(), mean) < 1e-5
