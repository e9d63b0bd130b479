"""TIES against the rule written out by hand, one entry at a time."""

import pytest
import torch

from fisherexp.methods.merging.ties import agreed, trimmed


def test_trimming_keeps_the_largest_of_the_whole_model():
    delta = {"a": torch.tensor([[1.0, -5.0], [0.1, 3.0]]), "b": torch.tensor([-4.0, 0.5])}
    kept = trimmed(delta, 0.5)  # ⌊0.5 · 6⌋ + 1
    assert kept["a"].tolist() == [[1, -5], [0, 3]]
    assert kept["b"].tolist() == [-4, 0]


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.37, 0.5, 0.999])
def test_trimming_keeps_what_the_authors_code_keeps(keep, models):
    """All that are at least the (d - ⌊K d⌋)-th smallest, so one more than ⌊K d⌋; a tie with the least stays."""
    flat = torch.cat([values.flatten() for values in models[0].values()])
    flat[5] = -flat[17]  # equal ones
    threshold = flat.abs().kthvalue(len(flat) - int(len(flat) * keep)).values
    expected = flat * (flat.abs() >= threshold)
    found = trimmed({"a": flat}, keep)["a"]
    assert torch.equal(found, expected)
    assert (found != 0).sum() > int(keep * len(flat))  # what the share alone says, were it cut off


def test_sign_is_elected_and_only_those_who_agree_are_averaged():
    deltas = [torch.tensor([3.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, -3.0, 0.0, 2.0]), torch.tensor([-2.0, 0, 0, 4.0])]
    assert agreed([{"a": delta} for delta in deltas])["a"].tolist() == [2, -3, 0, 3]


def test_a_tie_goes_to_the_majority_of_signs():
    positive = [{"a": torch.tensor([1.0, 5.0, 2.0])}, {"a": torch.tensor([-1.0, 5.0, 2.0])}]
    assert agreed(positive)["a"].tolist() == [1, 5, 2]
    negative = [{"a": -delta["a"]} for delta in positive]
    assert agreed(negative)["a"].tolist() == [-1, -5, -2]


def test_equals_a_plain_loop(base, models):
    deltas = [trimmed({name: model[name] - base[name] for name in base}, 0.4) for model in models]
    merged = agreed(deltas)
    for name, tensor in merged.items():
        entries = torch.stack([delta[name].flatten() for delta in deltas], 1)
        for found, entry in zip(tensor.flatten().tolist(), entries.tolist(), strict=True):
            agreeing = [value for value in entry if value * sum(entry) > 0]
            assert abs(found - (sum(agreeing) / len(agreeing) if agreeing else 0)) < 1e-12
