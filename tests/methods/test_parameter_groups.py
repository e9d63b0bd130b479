"""Groups by name and by width: who is in which, with what rate and decay, and what is refused."""

import pytest
import torch
from torch import nn

from fisherexp.methods.parameter_groups import matrices
from fisherexp.methods.recipe import Recipe
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.classifier import Classifier

WIDTH = {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3, "weight_decay_rule": "width"}


def gpt(dim: int = 8) -> Classifier:
    backbone = CharGPT(dim=dim, depth=1, heads=2, input_shape=(4,), vocabulary=5)
    return Classifier(backbone, dim, 5)


def settings(recipe: Recipe, model: nn.Module) -> dict[str, tuple[float, float]]:
    """(lr, weight decay) of every parameter by name; each must be in one group."""
    groups = recipe.configure(model, 1)["optimizer"].param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    listed = [(names[id(p)], (g["initial_lr"], g["weight_decay"])) for g in groups for p in g["params"]]
    assert len(listed) == len(dict(listed)) == len(names)
    return dict(listed)


def test_uniform_is_one_group_in_the_order_of_the_model():
    model = gpt()
    (group,) = Recipe(lr=0.01, weight_decay=0.3).groups_of(model)
    assert [id(p) for p in group.pop("params")] == [id(p) for p in model.parameters()]
    assert group == {"lr": 0.01, "weight_decay": 0.3}


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_width_scales_matrices_and_decays_nothing_else(ratio):
    """From width 256 to 1024 rates fall to a quarter and decay doubles."""
    model = gpt()
    for name, found in settings(Recipe(**WIDTH, width_ratio=ratio), model).items():
        matrix = "weight" in name and "blocks" in name and "norm" not in name
        expected = (0.01 / ratio, 0.3 * ratio**0.5) if matrix else (0.01, 0.0)
        assert found == pytest.approx(expected), name


def test_what_the_rule_says_of_the_steady_state_is_that_widths_cancel():
    """√(η/λ) d^¾ is the same for 256 and 1024."""
    (lr, decay), (wide_lr, wide_decay) = (0.01, 0.3), (0.01 / 4, 0.3 * 2)
    assert (lr / decay) ** 0.5 * 256**0.75 == pytest.approx((wide_lr / wide_decay) ** 0.5 * 1024**0.75)


def test_a_tied_head_is_the_embedding_and_a_kernel_a_matrix():
    assert len(matrices(gpt())) == len([p for n, p in gpt().named_parameters() if "blocks" in n and p.ndim == 2])
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    assert matrices(model) == {model[0].weight, model[3].weight}


def test_names_come_before_the_rule_and_the_first_before_the_next():
    groups = {"tokens": {"lr": 1.0}, "norm": {"lr": 2.0, "weight_decay": 0.5}, "weight$": {"weight_decay": 0.7}}
    found = settings(Recipe(**WIDTH, groups=groups), gpt())
    assert found["backbone.tokens.weight"] == (1.0, 0.0)
    assert found["backbone.norm.weight"] == (2.0, 0.5)
    assert found["backbone.positions.weight"] == (0.01, 0.7)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"groups": {"tokens": {"lrs": 1.0}}}, "groups: 'tokens' sets lrs, which is none of .* nearest: lr"),
        ({"groups": {"tokenz": {"lr": 1.0}}}, "'tokenz' is in no name of a trained parameter"),
        ({"weight_decay_rule": "width"}, "weight_decay_rule=width is of AdamW, not optimizer=sgd: optimizer=adamw"),
    ],
)
def test_what_fits_nothing_is_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**recipe).configure(gpt(), 1)


def settled(width: int, lr: float, decay: float, steps: int = 1500) -> torch.Tensor:
    """A matrix that AdamW was fed noise for 3/(ηλ) steps: its weights."""
    generator = torch.Generator().manual_seed(width)
    weights = nn.Parameter(torch.zeros(width, width))
    optimizer = torch.optim.AdamW([weights], lr=lr, weight_decay=decay)
    for _ in range(steps):
        weights.grad = torch.randn(width, width, generator=generator)
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("width", [16, 32])
def test_fed_noise_adamw_settles_at_the_root_of_rate_over_twice_the_decay(width):
    """The control of the rule: without training, entries do not know the width, and σ goes as its root."""
    weights = settled(width, lr=0.02, decay=0.1)
    assert weights.square().mean().sqrt().item() == pytest.approx((0.02 / 0.2) ** 0.5, rel=0.1)
