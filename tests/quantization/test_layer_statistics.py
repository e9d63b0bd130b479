"""Statistics of inputs against the inputs themselves; a layer as a matrix; a layer that is exchanged; files."""

import pytest
import torch
from torch import nn

from fisherexp.quantization import (
    Collector,
    Factored,
    Integer,
    StoredWeight,
    fake_quantize,
    input_rows,
    is_matrix,
    load,
    matrix,
    save,
    set_matrix,
    weighted_low_rank,
)


class Conv1D(nn.Module):
    """As transformers has it for GPT-2."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(m, n)), nn.Parameter(torch.randn(n))

    def forward(self, x):
        return x @ self.weight + self.bias


LAYERS = [
    (nn.Linear(7, 5), torch.randn(3, 4, 7)),
    (Conv1D(5, 7), torch.randn(3, 4, 7)),
    (nn.Conv2d(3, 5, 3, stride=2, padding=1, dilation=2), torch.randn(2, 3, 9, 9)),
    (nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0)), torch.randn(2, 3, 9, 8)),
    (nn.Conv2d(3, 5, (2, 3), padding="same"), torch.randn(2, 3, 9, 8)),
]


@pytest.mark.parametrize(("layer", "x"), LAYERS)
def test_a_layer_is_its_matrix_applied_to_its_rows(layer, x):
    assert is_matrix(layer)
    outputs = layer(x)
    wanted = outputs.flatten(2).transpose(1, 2) if isinstance(layer, nn.Conv2d) else outputs
    rows = input_rows(layer, x)
    torch.testing.assert_close(rows @ matrix(layer).T + layer.bias, wanted.flatten(0, 1), atol=1e-5, rtol=1e-5)
    before = matrix(layer).detach().clone()
    set_matrix(layer, 2 * before)
    assert torch.equal(matrix(layer), 2 * before)
    set_matrix(layer, before)


def test_what_is_no_matrix_is_named_so():
    others = [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding_mode="circular"), nn.Embedding(3, 4), nn.ReLU()]
    assert not any(map(is_matrix, others))


class Attention(nn.Module):
    """Two layers on one tensor, then one on another."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.out(torch.tanh(self.query(x) * self.key(x)))


@pytest.fixture
def watched():
    torch.manual_seed(0)
    model, batches = Attention(), [torch.randn(5, 4, 6), torch.randn(2, 4, 6)]
    collector = Collector(model, ["query", "key", "out"], max_width=6, keep=22)
    for batch in batches:
        collector.look(batch)
    return model, batches, collector


def test_sums_are_those_of_the_rows(watched):
    model, batches, collector = watched
    rows = torch.cat([batch.flatten(0, 1) for batch in batches]).double()
    stats = collector.stats["query"]
    assert stats.count == 28
    torch.testing.assert_close(stats.second_moment, rows.T @ rows / 28)
    torch.testing.assert_close(stats.mean_square, rows.square().mean(0))
    torch.testing.assert_close(stats.mean_magnitude, rows.abs().mean(0))
    torch.testing.assert_close(stats.largest, rows.abs().amax(0))
    means = [batch.flatten(0, 1).double().abs().mean(0) for batch in batches]
    torch.testing.assert_close(stats.largest_batch_mean, torch.maximum(*means))
    assert torch.equal(stats.rows, rows[:22].float())
    delta = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(stats.squared_output(delta), (rows @ delta.T).square().sum(1).mean())
    inner = torch.tanh(model.query(batches[1]) * model.key(batches[1])).flatten(0, 1).double()
    alone = Collector(model, ["out"], max_width=6)
    alone.look(batches[1])
    torch.testing.assert_close(alone.stats["out"].second_moment, inner.T @ inner / 8)


def test_one_tensor_is_summed_once_and_sums_go_on_from_a_saved_state(watched):
    model, batches, collector = watched
    assert collector.stats["query"] is collector.stats["key"]
    assert collector.stats["query"] is not collector.stats["out"]
    first = Collector(model, ["query", "key", "out"], max_width=6, keep=22)
    first.look(batches[0])
    second = Collector(model, ["query", "key", "out"], max_width=6, keep=22)
    second.load(first.state())
    second.look(batches[1])
    assert second.stats["query"] is second.stats["key"]
    for name, stats in collector.stats.items():
        for part, value in stats.state().items():
            assert torch.equal(value, second.stats[name].state()[part]), (name, part)


class InPlace(Attention):
    """The second layer on what the first one's inputs became."""

    def forward(self, x):
        x = x.clone()
        query = self.query(x)
        return self.out(torch.tanh(query * self.key(x.relu_())))


def test_a_tensor_that_changed_in_place_is_another():
    collector, x = Collector(InPlace(), ["query", "key"], max_width=6), torch.randn(7, 6)
    collector.look(x)
    for name, rows in (("query", x.double()), ("key", x.double().relu())):
        torch.testing.assert_close(collector.stats[name].second_moment, rows.T @ rows / 7)


class Repeated(nn.Module):
    """A layer that is called so many times, then others; counts how often it gets to its end."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.inner, self.other, self.tail = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.times, self.ended = times, 0

    def forward(self, x):
        for _ in range(self.times):
            x = torch.tanh(self.inner(x))
        x = self.tail(self.other(x))
        self.ended += 1
        return x


@pytest.mark.parametrize(("times", "ended"), [(1, 1), (2, 3)])
def test_a_pass_ends_where_nothing_is_left_to_see(times, ended):
    """After the first, and only where every layer is called once; the sums are those of whole passes."""
    torch.manual_seed(0)
    model, batches = Repeated(times), [torch.randn(5, 6) for _ in range(3)]
    collector = Collector(model, ["inner", "other"], max_width=6)
    for batch in batches:
        collector.look(batch)
    assert model.ended == ended
    for name, layer in (("inner", model.inner), ("other", model.other)):
        rows = []
        handle = layer.register_forward_pre_hook(lambda _, given, rows=rows: rows.append(given[0].double()))
        for batch in batches:
            model(batch)
        handle.remove()
        stats, seen = collector.stats[name], torch.cat(rows)
        assert stats.count == len(seen)
        torch.testing.assert_close(stats.second_moment, seen.T @ seen / len(seen))


def test_a_layer_that_is_not_always_called_ends_no_pass():
    model = Repeated(0)
    collector = Collector(model, ["inner", "other"], max_width=6)
    for model.times in (0, 1, 2):
        collector.look(torch.randn(5, 6))
    assert model.ended == 3
    assert collector.stats["inner"].count == 15


def test_padding_does_not_count_in_tokens_that_stand_in_one_row():
    """As OPT gives them to its feed-forward layers; inputs of another number are no tokens."""
    layer, x = nn.Linear(7, 5), torch.randn(3, 4, 7)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
    wanted = x[mask.bool()]
    assert torch.equal(input_rows(layer, x, mask), wanted)
    assert torch.equal(input_rows(layer, x.flatten(0, 1), mask), wanted)
    assert torch.equal(input_rows(layer, x[:, 0], mask), x[:, 0])


def test_padding_does_not_count_and_a_wide_layer_has_its_diagonal(watched):
    model, batches, collector = watched
    mask = torch.ones(5, 4, dtype=torch.long)
    mask[1:, 2:] = 0
    masked = Collector(model, ["query", "out"], max_width=5)
    masked.look(batches[0], mask)
    rows = batches[0][mask.bool()].double()
    stats = masked.stats["query"]
    assert stats.count == len(rows) == 12
    assert masked.diagonal == ["query", "out"]
    assert collector.diagonal == []
    torch.testing.assert_close(stats.second_moment, rows.square().mean(0))
    delta = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(stats.squared_output(delta), (delta.square() * rows.square().mean(0)).sum())


def stored(weight: torch.Tensor, rank: int = 2, smooth: bool = True) -> StoredWeight:
    form = Integer(3, 4)
    scales = torch.rand(weight.shape[1]) + 0.5 if smooth else None
    given = weight.double() * scales if smooth else weight.double()
    parts = form.encode(given)
    factors = [each.half() for each in weighted_low_rank(given - form.decode(parts, given.shape), rank)]
    return StoredWeight(tuple(weight.shape), form, parts, *factors, smooth=scales)


@pytest.mark.parametrize(("layer", "x"), LAYERS[:2])
def test_an_exchanged_layer_computes_with_what_is_stored(layer, x):
    keys = {name: tensor.shape for name, tensor in layer.state_dict().items()}
    found = stored(matrix(layer).detach())
    exact = Factored(layer, found, None)
    assert {name: tensor.shape for name, tensor in exact.state_dict().items()} == keys
    torch.testing.assert_close(exact(x), x @ found.weight().float().T + layer.bias, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(matrix(layer), found.weight().float())
    rounding = Factored(layer, found, 4, 4)
    smooth = x / found.smooth
    wanted = fake_quantize(smooth, 4, 4) @ found.quantized().float().T + layer.bias
    wanted = wanted + smooth @ (found.up.float() @ found.down.float()).T
    torch.testing.assert_close(rounding(x), wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(rounding(x), exact(x), atol=1e-2)  # the control


def test_a_file_is_as_large_as_it_says_and_reads_itself(tmp_path):
    weight = torch.randn(6, 8)
    layers = {
        "a.b": stored(weight),
        "c": stored(weight, smooth=False),
        "d/e": StoredWeight((6, 8), None, {}, *[each.half() for each in weighted_low_rank(weight, 3)]),
    }
    save(layers, tmp_path / "stored.safetensors")
    read = load(tmp_path / "stored.safetensors")
    for name, found in layers.items():
        assert torch.equal(read[name].weight(), found.weight()), name
        assert read[name].num_bytes == found.num_bytes
        assert read[name].rank == found.rank
    content = (tmp_path / "stored.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert len(content) - header == sum(found.num_bytes for found in layers.values())
