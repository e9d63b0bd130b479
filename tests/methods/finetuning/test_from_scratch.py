"""What training from scratch with reparametrized weights owes: what is trained, counts, ranks, an ordinary record."""

import functools

import pytest
import torch

from fisherexp import adapters
from fisherexp.config.explain import composed
from fisherexp.methods.finetuning.maestro import shuffled_pairs
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

LINES = ["model.hidden=[16,12]", "data.train_size=200", "progress=off", "threads=1", "method.training.epochs=2"]
SHAPES = {"backbone.layers.1": (16, 64), "backbone.layers.3": (12, 16)}
BESIDE = 16 + 12 + 10 * 12 + 10  # biases and the head
FACTORS = 8 * (16 + 64 + 12 + 16)
MERGED = {"factorised": FACTORS, "sst": FACTORS + 16 + 12, "maestro": 16 * (16 + 64) + 12 * (12 + 16)}


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("from_scratch")

    def make(method: str, *options: str) -> Workbench:
        return Workbench(composed([f"method={method}", *LINES, f"output_dir={folder}", *options]))

    return make


@pytest.fixture(scope="module")
def trained(bench_of, tmp_path_factory):
    """A method at the end of its fit, with the objects of that fit; made once for all tests."""

    @functools.cache
    def fit(name: str, *options: str):
        bench = bench_of(name, *options)
        method = bench.method("method")
        method.begun = {key: tensor.clone() for key, tensor in method.model.state_dict().items()}
        bench.fit(method, tmp_path_factory.mktemp(name), name)
        return method

    return fit


@pytest.mark.parametrize("name", MERGED)
def test_everything_moves_and_as_much_is_trained_as_the_formula_says(name, trained):
    method = trained(name)
    state = method.model.state_dict()
    assert state.keys() == method.begun.keys()
    assert {key for key in state if torch.equal(state[key], method.begun[key])} <= {"mean", "std"}
    assert method.outcome["metrics"]["trained_numbers"] == MERGED[name] + BESIDE
    assert adapters.adapted_layers(method.model) == {}
    assert all(p.requires_grad for p in method.model.parameters())


@pytest.mark.parametrize("name", [*MERGED, "lost"])
def test_the_artefact_is_what_a_new_process_makes_of_it(name, bench_of, tmp_path):
    method, _ = finished(bench_of(name), tmp_path)
    again, _ = finished(bench_of(name), tmp_path)  # found, not trained again
    assert all(torch.equal(t, again.model.state_dict()[key]) for key, t in method.model.state_dict().items())
    assert again.outcome == method.outcome


def test_factorised_layers_keep_their_rank_and_the_head_has_its_own(trained):
    method = trained("factorised", "method.rank=3")
    for layer in SHAPES:
        values = torch.linalg.svdvals(method.model.get_submodule(layer).weight.double())
        assert values[2] > 1e-2 > 1e-5 > values[3]
    assert torch.linalg.matrix_rank(method.model.head.weight) == 10  # the control


COLUMNS = 16 + 12  # one dense column of each layer


@pytest.mark.parametrize(("option", "columns"), [("gamma=0.7", COLUMNS), ("gamma=1.0", COLUMNS), ("share=0.0", 0)])
def test_losts_controls_leave_one_branch_as_it_was(option, columns, trained):
    method = trained("lost", f"method.{option}")
    state = method.model.state_dict()
    still = {key for key in state if torch.equal(state[key], method.begun[key]) and state[key].is_floating_point()}
    dense = {f"{layer}.dense" for layer in SHAPES}
    assert still - {"mean", "std"} == (set() if option == "gamma=0.7" else dense)
    assert method.outcome["metrics"]["trained_numbers"] == FACTORS + columns + BESIDE
    assert all(torch.equal(state[f"{layer}.columns"], method.begun[f"{layer}.columns"]) for layer in SHAPES)


def test_maestro_drops_what_does_not_matter(trained):
    """A heavy penalty leaves fewer components than none; a threshold above all leaves one; the record says which."""
    shape = dict(zip(SHAPES, ((16, 64), (12, 16)), strict=True))
    found = {}
    for option in ("penalty=0.0", "threshold=0.1", "threshold=1e6"):
        method = trained("maestro", f"method.{option}", *(["method.penalty=0.05"] if option.endswith("0.1") else []))
        ranks = found[option] = method.outcome["ranks"]
        numbers = sum(rank * sum(shape[layer]) for layer, rank in ranks.items())
        assert method.outcome["metrics"]["trained_numbers"] == numbers + BESIDE
        for layer, rank in ranks.items():
            assert torch.linalg.matrix_rank(method.model.get_submodule(layer).weight.detach()) <= rank
    none, some, all_but_one = ([*ranks.values()] for ranks in found.values())
    assert none == [16, 12]
    assert all(1 < left < kept for left, kept in zip(some, none, strict=True))
    assert all_but_one == [1, 1]


def test_every_layer_and_width_comes_once(trained):
    pairs = shuffled_pairs([3, 2])
    assert sorted(pairs) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert len({tuple(shuffled_pairs([3, 2])) for _ in range(20)}) > 1
    steps = 2 * 4  # of batches of 64
    assert len(trained("maestro", "method.penalty=0.0").pairs) == 16 + 12 - steps
