"""Batches as real models have them: mappings, encodings, masks, structured results; against one sample at a time."""

from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import LowRankAccumulator, fisher_diagonal, kfac
from fisherexp.curvature.inputs import batch_size, move, parts_of, select


class Classifier(nn.Module):
    """Keyword arguments as a Hugging Face model has them: masked attention over tokens, a result with fields."""

    def __init__(self, result=SimpleNamespace):
        super().__init__()
        self.embed, self.attend = nn.Embedding(11, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head, self.result = nn.Linear(8, 3), result

    def forward(self, input_ids, attention_mask=None, return_dict=True):
        x = self.embed(input_ids)
        hidden = self.attend(x, x, x, key_padding_mask=attention_mask == 0, need_weights=False)[0]
        weights = attention_mask.to(x.dtype).unsqueeze(-1)
        return self.result(logits=self.head((hidden * weights).sum(1) / weights.sum(1)), hidden=hidden)


class Decoder(nn.Module):
    """Logits of every position as a field, from a causal layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids, attention_mask=None):
        return SimpleNamespace(logits=self.head(torch.tanh(self.mix(self.embed(input_ids)).cumsum(1))))


def encoding(kind=dict, samples=5):
    torch.manual_seed(0)
    lengths = torch.tensor([6, 3, 6, 2, 4])[:samples, None]
    mask = (torch.arange(6) < lengths).long()
    return kind(input_ids=torch.randint(1, 11, (samples, 6)) * mask, attention_mask=mask)


def squares(model, losses):
    """Mean over samples of the squared gradient of each one's loss."""
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
        for (name, sums), g in zip(total.items(), gradients, strict=True):
            if g is not None:
                total[name] = sums + g.square()
    return {n: t / len(losses) for n, t in total.items()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12 * max(v.max() for v in expected.values()))


@pytest.mark.parametrize("kind", [dict, UserDict])
@pytest.mark.parametrize("result", [SimpleNamespace, dict])
def test_classifier(kind, result):
    torch.manual_seed(1)
    model, y = Classifier(result).double().eval(), torch.tensor([0, 2, 1, 1, 0])
    plain = encoding()
    alone = [{n: t[i : i + 1] for n, t in plain.items()} for i in range(5)]
    outputs = [model(**one) for one in alone]
    logits = [out["logits"] if result is dict else out.logits for out in outputs]
    expected = squares(model, [F.cross_entropy(z, y[i : i + 1]) for i, z in enumerate(logits)])
    named = kind(labels=y, return_dict=True, **plain)
    assert_same(fisher_diagonal(model, [named]), expected)
    assert_same(fisher_diagonal(model, [(kind(**plain), y)]), expected)
    names = ["input_ids", "attention_mask"]
    assert_same(fisher_diagonal(model, [kind(named, extra=torch.zeros(5))], inputs=names), expected)
    renamed = [kind(answers=y, **plain)]
    assert_same(fisher_diagonal(model, renamed, targets="answers"), expected)
    assert_same(fisher_diagonal(model, renamed, inputs=lambda b: plain, targets=lambda b: b["answers"]), expected)
    assert "head.weight" in kfac(model, [named]).factors
    rows = LowRankAccumulator(model, rows=5)
    rows.update(kind(**plain), y)
    assert_same(rows.result().named(rows.result().diagonal()), expected)


def test_another_field_of_the_result():
    torch.manual_seed(1)
    model = Classifier().double().eval()
    hooks = dict(model._forward_hooks)
    batch, y = encoding(), torch.randn(5, 6, 8).double()
    found = fisher_diagonal(model, [(batch, y)], outputs=lambda out: out.hidden, loss="gaussian")
    losses = []
    for i in range(5):
        hidden = model(**{n: t[i : i + 1] for n, t in batch.items()}).hidden
        losses.append(0.5 * (hidden - y[i : i + 1]).square().sum())
    assert_same(found, squares(model, losses))
    assert model._forward_hooks == hooks
    factors = kfac(model, [(batch, y)], outputs=lambda out: out.hidden, loss="gaussian").factors
    assert "attend.out_proj.weight" in factors
    assert "head.weight" not in factors


def test_causal_language_model_with_padding():
    torch.manual_seed(1)
    model = Decoder().double().eval()
    batch = encoding()
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    next_token = {"outputs": lambda out: out.logits[:, :-1], "targets": lambda batch: batch["labels"][:, 1:]}
    logits, targets = model(batch["input_ids"]).logits[:, :-1], batch["labels"][:, 1:]
    sequences = [F.cross_entropy(z, y) for z, y in zip(logits, targets, strict=True)]
    assert_same(fisher_diagonal(model, [batch], loss="sequence", **next_token), squares(model, sequences))
    tokens = [F.cross_entropy(z, y) for z, y in zip(logits.flatten(0, 1), targets.flatten(), strict=True) if y != -100]
    assert_same(fisher_diagonal(model, [batch], loss="token", **next_token), squares(model, tokens))


def test_the_model_is_left_as_it_was_when_outputs_fail():
    model = Classifier().double()
    with pytest.raises(AttributeError, match="nothing"):
        fisher_diagonal(
            model, [encoding(samples=3) | {"labels": torch.zeros(3).long()}], outputs=lambda out: out.nothing
        )
    assert not model._forward_hooks


def test_parts():
    x, y, w = torch.ones(2), torch.zeros(2), torch.ones(2)
    assert parts_of((x, y, w)) == (x, y, w)
    assert parts_of([x, y], targets=lambda b: w) == (x, w)
    assert parts_of({"a": x, "labels": y}) == ({"a": x}, y)
    assert parts_of({"a": x}) == ({"a": x}, None)
    assert parts_of({"a": x, "labels": y}, targets=lambda b: w) == ({"a": x}, w)


@pytest.mark.parametrize(
    ("batch", "options", "match"),
    [
        ({"input_ids": 1, "labels": 2}, {"inputs": ["input_idx"]}, "did you mean 'input_ids'"),
        ({"input_ids": 1, "answers": 2}, {"targets": "answer"}, "did you mean 'answers'"),
        (torch.ones(3), {}, r"a batch must be \(inputs, targets.*got Tensor"),
    ],
)
def test_refusals(batch, options, match):
    with pytest.raises(ValueError, match=match):
        parts_of(batch, **options)


def test_a_result_without_logits_says_how_to_name_it():
    model = Classifier(lambda **fields: list(fields.values()))
    with pytest.raises(TypeError, match="outputs=lambda result"):
        fisher_diagonal(model, [encoding(samples=3) | {"labels": torch.zeros(3).long()}])


def test_mappings_of_other_kinds_are_walked_through():
    batch = encoding(UserDict)
    assert batch_size(batch) == 5
    assert select(batch, slice(1, 3), 5)["input_ids"].shape == (2, 6)
    assert move(batch, torch.device("cpu"))["attention_mask"].dtype == torch.int64


# --- with the library itself, where it is installed ------------------------------------------------------------------

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def test_transformers_classifier():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, max_position_embeddings=12, num_labels=3)
    model = transformers.BertForSequenceClassification(config).double().eval()
    encoded, y = transformers.BatchEncoding(encoding()), torch.tensor([0, 2, 1, 1, 0])
    losses = [
        F.cross_entropy(model(**{n: t[i : i + 1] for n, t in encoded.items()}).logits, y[i : i + 1]) for i in range(5)
    ]
    expected = squares(model, losses)
    encoded["labels"] = y
    assert_same(fisher_diagonal(model, [encoded]), expected)


def test_transformers_causal_language_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=1, tie_word_embeddings=True, pad_token_id=0)
    model = transformers.LlamaForCausalLM(config).double().eval()
    batch = transformers.BatchEncoding(encoding())
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    losses = []
    for i in range(5):
        one = {n: t[i : i + 1] for n, t in batch.items() if n != "labels"}
        losses.append(F.cross_entropy(model(**one).logits[0, :-1], batch["labels"][i, 1:]))
    found = fisher_diagonal(
        model,
        [batch],
        loss="sequence",
        outputs=lambda out: out.logits[:, :-1],
        targets=lambda batch: batch["labels"][:, 1:],
    )
    assert_same(found, squares(model, losses))
