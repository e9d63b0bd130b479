"""Shared bases: bounds never below the truth, the incremental one close; clusters of what belongs together."""

import copy
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from fisherexp.methods.compression.basis_clusters import clusters
from fisherexp.methods.compression.concatenated_svd import ConcatenatedSVD, Shared, separate, share, stored
from fisherexp.methods.compression.shared_basis import (
    OVERSAMPLING,
    add,
    begin,
    bound,
    incremental,
    norm_error,
    residual_error,
    true_error,
)

BOUNDS = ["incremental", "residual", "norm"]


def family(seed: int, noise: float = 0.1, blocks: int = 6, columns: int = 8) -> list[torch.Tensor]:
    """Blocks (40, columns) of one basis of six, and noise."""
    torch.manual_seed(seed)
    basis = torch.randn(40, 6).double()
    return [basis @ torch.randn(6, columns).double() + noise * torch.randn(40, columns) for _ in range(blocks)]


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_bound_is_never_below_the_error(kind):
    for seed in range(6):
        for columns in (4, 8, 50):  # fewer than the rank, more, and more than rows
            blocks = family(seed, columns=columns)
            for rank in (3, 8):
                assert bound(blocks, rank, kind) >= true_error(blocks, rank) - 1e-9


def test_blocks_without_full_rank_break_no_bound_and_leave_the_basis_orthonormal():
    """Zero blocks, copies, and blocks of fewer dimensions than columns: what they have outside the basis is, in some
    directions, nothing but rounding errors."""
    for seed in range(40):
        torch.manual_seed(seed)
        sizes = torch.randint(1, 25, (5,)).tolist()
        blocks = [torch.randn(20, 2).double() @ torch.randn(2, n).double() for n in sizes]
        for some in (blocks, [*blocks, blocks[0], torch.zeros(20, 4)]):
            for rank in (2, 5, 9):
                assert bound(some, rank, "incremental") >= true_error(some, rank) - 1e-7
                columns = incremental(some, rank).columns
                torch.testing.assert_close(columns.T @ columns, torch.eye(columns.shape[1]).double())


def test_the_incremental_bound_is_close_and_the_others_are_not():
    errors = {kind: sum(bound(family(s), 8, kind) for s in range(10)) / 10 for kind in BOUNDS}
    truth = sum(true_error(family(s), 8) for s in range(10)) / 10
    assert errors["incremental"] < 1.02 * truth
    assert min(errors["residual"], errors["norm"]) > 3 * truth


@pytest.mark.parametrize("kind", BOUNDS)
def test_bounds_fall_with_the_rank(kind):
    found = [bound(family(0), rank, kind) for rank in range(1, 20)]
    assert all(b <= a + 1e-9 for a, b in pairwise(found))


def test_the_whole_norm_of_a_wide_block_would_be_no_bound():
    """As in the authors' code: all of ‖A_max‖², of 30 columns at rank 5."""
    torch.manual_seed(0)
    blocks = [torch.randn(40, 30).double() for _ in range(3)]
    largest = max(block.square().sum() for block in blocks)
    theirs = float((1 - largest / sum(block.square().sum() for block in blocks)).sqrt())
    assert theirs < true_error(blocks, 5) <= norm_error(blocks, 5)


def test_with_room_for_all_directions_the_basis_is_exact_in_any_order():
    blocks = family(1, noise=0.0)
    for ordered in (blocks, blocks[::-1]):
        basis = incremental(ordered, 6)
        assert bound(ordered, 6, "incremental") < 1e-7
        exact = torch.linalg.svdvals(torch.cat(blocks, 1))[:6].square()
        torch.testing.assert_close(basis.gram.diagonal()[:6], exact, rtol=1e-10, atol=0)
    assert residual_error(blocks, 6) < 1e-5 or residual_error(blocks, 6) >= true_error(blocks, 6)


def test_a_block_within_the_span_leaves_it():
    basis = begin(family(2, noise=0.0)[0], 6)
    wider = add(basis, basis.columns[:, :6] @ torch.randn(6, 5).double(), 6)
    projector = lambda b: b.columns[:, :6] @ b.columns[:, :6].T  # noqa: E731
    torch.testing.assert_close(projector(wider), projector(basis), atol=1e-9, rtol=0)
    assert wider.columns.shape[1] <= 6 + OVERSAMPLING


COPIES = frozenset(f"copy{n}" for n in range(4))


@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("order", ["residual", "norm"])
def test_copies_are_together_and_strangers_apart(kind, order):
    """Only by the bound that is close: by the others all are alone at this ε. At a larger one they form clusters too,
    and no cluster's error is above ε."""
    torch.manual_seed(0)
    low = torch.randn(40, 5) @ torch.randn(5, 16)
    blocks = {f"copy{n}": low + 0.02 * torch.randn(40, 16) for n in range(4)}
    blocks |= {f"stranger{n}": torch.randn(40, 4) @ torch.randn(4, 16) for n in range(3)}
    for epsilon in (0.1, 0.8):
        found = clusters(blocks, 5, epsilon, kind, order)
        together = {frozenset(names) for names in found if len(names) > 1}
        assert sorted(name for names in found for name in names) == sorted(blocks)
        for names in found:
            assert true_error([blocks[name] for name in names], 5) <= epsilon
        assert together or epsilon == 0.1
        if epsilon == 0.1:
            assert together == ({COPIES} if kind == "incremental" else set())
    if kind == "incremental":
        everything = clusters(blocks, 17, 0.1, kind, order)  # 5 + 3 · 4: room for all
        assert [len(names) for names in everything] == [7]


def trained(model: nn.Sequential, epochs: int) -> nn.Sequential:
    """On digits."""
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch].float() / 16), labels[batch]).backward()
            optimizer.step()
    return model


@pytest.mark.proof
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_copies_of_a_trained_layer_are_together_and_strangers_apart(seed):
    """Four copies trained for five more epochs, their joint error 0.011 or 0.012, and four layers of other networks, of
    which one beside a copy has 0.21."""
    torch.manual_seed(seed)
    network = lambda: trained(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), 10)  # noqa: E731
    one = network()
    networks = {name: trained(copy.deepcopy(one), 5) for name in sorted(COPIES)}
    networks |= {f"stranger{n}": network() for n in range(4)}
    blocks = {name: model[0].weight.detach() for name, model in networks.items()}
    for order in ("residual", "norm"):
        found = clusters(blocks, 64, 0.1, "incremental", order)
        assert {frozenset(names) for names in found} == {COPIES, *(frozenset([f"stranger{n}"]) for n in range(4))}
        for names in found:
            assert true_error([blocks[name] for name in names], 64) < 0.02
    assert true_error([blocks["copy0"], blocks["stranger0"]], 64) > 0.15


def test_what_is_alone_is_whole_where_factors_are_too_far_off_or_too_large():
    torch.manual_seed(0)
    low = torch.randn(20, 2) @ torch.randn(2, 30)
    one = lambda block, rank: share({"a": block}, {20: rank}, 0.1, "incremental", "norm")  # noqa: E731
    assert one(low, 2)[0].basis.shape == (20, 2)
    assert one(torch.randn(20, 30), 2)[0].basis is None  # far off
    assert one(low, 15)[0].basis is None  # more numbers than the matrix
    assert stored(Shared(torch.zeros(20, 2), {"a": torch.zeros(2, 30), "b": torch.zeros(2, 7)})) == 2 * (20 + 30 + 7)


def test_separate_factors_hold_no_more_numbers_and_lose_least():
    torch.manual_seed(0)
    blocks = {"a": torch.randn(10, 12), "b": 5 * torch.randn(10, 3)}
    assert sum(separate(blocks, 10**6).values()) == pytest.approx(0, abs=1e-6)
    lost = separate(blocks, 13)  # one direction of b, and none of a
    squares = torch.linalg.svdvals(blocks["b"].double()).square()
    assert lost["b"] == pytest.approx(float(squares[1:].sum()))
    assert lost["a"] == pytest.approx(float(blocks["a"].double().square().sum()))


VIT = ["model=vit_tiny", "model.dim=12", "model.depth=2", "model.heads=2"]


@pytest.mark.parametrize("side", ["out", "in"])
def test_a_transformers_layers_share_and_the_files_are_its_weights(compressed, side, tmp_path):
    options = [f"method.side={side}", "method.rank=6", "method.epsilon=0.8"]
    fit, source = compressed("concatenated_svd", *options, model=VIT)
    out, after = fit.outcome, fit.model.state_dict()
    assert out["metrics"]["shared_layers"] >= 2
    assert out["metrics"]["stored_share"] < 100
    names = [f"{name}.weight" for name in out["layers"]]
    lost = sum((after[n] - source[n]).square().sum().item() for n in names)
    size = sum(source[n].square().sum().item() for n in names)
    assert out["metrics"]["relative_error"] == pytest.approx((lost / size) ** 0.5, rel=1e-4)
    for name in set(source) - set(names):
        assert torch.equal(after[name], source[name])
    fit.leave_files(tmp_path)
    left = load_file(tmp_path / "shared_factors.safetensors")
    number, members = next((n, c) for n, c in enumerate(out["clusters"]) if len(c) > 1)
    for name in members:
        matrix = left[f"{number}.basis"] @ left[f"{name}.coefficients"]
        torch.testing.assert_close(matrix if side == "out" else matrix.T, after[f"{name}.weight"].flatten(1))
    assert (tmp_path / "concatenated_svd.csv").read_text().count("\n") == 1 + len(names)


def test_only_the_layers_that_are_meant_share(compressed):
    options = ["method.rank=6", "method.epsilon=0.8", "method.targets=mlp", "method.exclude=blocks.1"]
    fit, source = compressed("concatenated_svd", *options, model=VIT)
    after = fit.model.state_dict()
    changed = {name for name in source if not torch.equal(after[name], source[name])}
    assert set(fit.outcome["layers"]) == {"backbone.blocks.0.mlp.0", "backbone.blocks.0.mlp.2"}
    assert changed == {"backbone.blocks.0.mlp.0.weight", "backbone.blocks.0.mlp.2.weight"}


def test_a_weight_that_another_module_has_as_well_is_refused():
    model = nn.ModuleDict({"tokens": nn.Embedding(9, 8), "inner": nn.Linear(8, 8), "logits": nn.Linear(8, 9)})
    model["logits"].weight = model["tokens"].weight
    options = {"rank": 2, "ratio": 0.5, "epsilon": 0.5, "side": "out", "bound": "incremental", "order": "norm"}
    with pytest.raises(ValueError, match=r"logits: the weight is another module's as well, leave it out by"):
        ConcatenatedSVD(model, **options)
    ConcatenatedSVD(model, **options, exclude="logits")
