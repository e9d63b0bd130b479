"""Functions that were told the same have the same key, others another."""

from functools import partial

import pytest
import torch

from fisherexp.runs.arguments import arguments


def told(*args, **kwargs):
    return args, kwargs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (partial(told, ("a", "b")), partial(told, ("b", "a"))),
        (partial(told, limit=1), partial(told, limit=2)),
        (partial(told, {"a": [1, None]}), partial(told, {"a": [1, 0.5]})),
        (partial(told, torch.zeros(2, 3)), partial(told, torch.zeros(3, 2))),
        (partial(told, torch.zeros(2)), partial(told, torch.ones(2))),
        (partial(told, say=str), partial(told, say=repr)),
        (partial(told, 1), told),
    ],
)
def test_what_differs_has_another_key(one, other):
    assert arguments(one) != arguments(other)
    assert arguments(one) == arguments(partial(one.func, *one.args, **one.keywords))


def test_a_key_is_of_plain_containers():
    found = arguments(partial(told, ("a", torch.ones(2)), say=str, limits={1: 2}))
    digest = arguments(partial(told, torch.ones(2)))[0][0]
    assert isinstance(digest, str)
    assert found == [[["a", digest]], {"say": "str", "limits": {"1": 2}}]
    assert arguments(told) == []
