"""Small-scale proofs of where ranks and directions go: AdaLoRA on a task planted in one layer, EVA's first steps."""

import copy
import functools
import statistics

import pytest
import torch
from first_steps import first_loss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from fisherexp import adapters
from fisherexp.adapters import AdaLoRA
from fisherexp.config.explain import composed
from fisherexp.methods.finetuning.explained import Explained
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)
LAYERS, STEPS = 5, 400


def planted_ranks(place: int, seed: int, labels: bool) -> list[int]:
    """Triplets that each of five layers keeps of a budget of five, where the teacher is the source with a perturbation
    of rank 4 in one of them, as large as its weight. labels: learn the teacher's classes and not its outputs."""
    torch.manual_seed(seed)
    linear = [nn.Linear(64, size) for size in (*[64] * LAYERS, 10)]
    for layer in linear:
        nn.init.kaiming_normal_(layer.weight)
    source = nn.Sequential(*[module for layer in linear for module in (layer, nn.ReLU())][:-1])
    names = [name for name, module in source.named_modules() if isinstance(module, nn.Linear)][:LAYERS]
    teacher, inputs = copy.deepcopy(source), torch.randn(2048, 64)
    with torch.no_grad():
        weight = teacher.get_submodule(names[place]).weight
        left, right = (torch.linalg.qr(torch.randn(64, 4)).Q for _ in range(2))
        weight += torch.linalg.matrix_norm(weight, 2) * left @ right.T
        wanted = teacher(inputs)
    options = {"rank": 6, "target": 1, "alpha": 12.0, "initial": 0.1, "final": 0.3}
    adapters.inject(source, names, functools.partial(AdaLoRA, **options, penalty_weight=0.1 / (2 * LAYERS)))
    optimizer = torch.optim.AdamW([p for p in source.parameters() if p.requires_grad], 1e-2, weight_decay=0.0)
    for step in range(STEPS):
        batch = torch.randint(len(inputs), (128,))
        found, right = source(inputs[batch]), wanted[batch]
        loss = cross_entropy(found, right.argmax(1)) if labels else mse_loss(found, right) / wanted.var()
        optimizer.zero_grad()
        (loss + adapters.penalty(source)).backward()
        adapters.after_backward(source, step, STEPS)
        optimizer.step()
        adapters.after_step(source, step, STEPS)
    ranks = [int(adapter.kept.sum()) for adapter in adapters.adapters(source)]
    assert sum(ranks) == LAYERS
    return ranks


@pytest.mark.parametrize("place", [0, 2, 4])
def test_adaloras_ranks_go_where_the_task_is_planted(place):
    """Taught with the teacher's outputs, the layer that differs ends with 80 % of the ranks or more, with two seeds of
    three at least (of these 18 runs 17 do), and with each it has the most."""
    ranks = [planted_ranks(place, seed, labels=False) for seed in range(6)]
    assert sum(found[place] >= 0.8 * LAYERS for found in ranks) >= 4
    assert all(found[place] > 0.5 * LAYERS for found in ranks)


@pytest.mark.parametrize("place", [0, 2])
def test_taught_with_labels_adalora_does_not_find_the_planted_layer(place):
    """A null: of the same teacher's classes any layer can learn as well, and the ranks go to the last ones."""
    for seed in SEEDS:
        assert planted_ranks(place, seed, labels=True)[place] < 0.8 * LAYERS


@pytest.fixture(scope="module")
def beginning(tmp_path_factory):
    """Mean loss of the first 20 steps from odd digits to even ones, at 1e-2 and a scale of 2 for all."""
    output_dir = tmp_path_factory.mktemp("allocation")
    same = ["method.alpha=8.0", "method.finetune.lr=1e-2", "method.finetune.schedule=constant"]

    @functools.cache
    def run(name: str, seed: int, *options: str, least: bool = False) -> float:
        given = ["experiment=finetuning_odd_even", f"method={name}", f"seed={seed}", f"output_dir={output_dir}", *same]
        bench = Workbench(composed([*given, *options, "method.finetune.epochs=2", "progress=off", "threads=1"]))

        def prepare(method):
            if least:
                method.given["directions"] = least_varying(method, bench.setting.parts["train"].inputs)

        folder = output_dir / " ".join([name, *options, str(least)]) / str(seed)
        return first_loss(bench, folder, seed, prepare)

    return run


@torch.no_grad()
def least_varying(method, inputs: Tensor) -> Explained:
    """Of each layer's inputs the four directions in which they vary least of those in which they vary at all (some
    pixels are always white): the last of a decomposition of all inputs."""
    seen = {}
    hooks = [
        method.model.get_submodule(name).register_forward_pre_hook(
            lambda layer, given, name=name: seen.__setitem__(name, given[0])
        )
        for name in method.layers()
    ]
    method.model(inputs)
    for hook in hooks:
        hook.remove()
    directions = {}
    for name, rows in seen.items():
        _, values, vt = torch.linalg.svd((rows - rows.mean(0)).double(), full_matrices=False)
        directions[name] = vt[values > 1e-3 * values[0]][-method.rank :]
    even = {name: torch.ones(method.rank) for name in directions}
    return Explained(directions, even, even, batches=1, samples=len(inputs))


@pytest.mark.parametrize("rho", [1, 2])
def test_evas_directions_start_faster_than_random_ones_and_the_least_varying_slower(beginning, rho):
    """With each seed, at one rate and scale for all."""
    for seed in SEEDS:
        leading, random = beginning("eva", seed, f"method.rho={rho}.0"), beginning("lora", seed)
        least = beginning("eva", seed, f"method.rho={rho}.0", least=True)
        assert leading < 0.8 * random
        assert least > random


def test_at_the_rates_chosen_for_them_eva_starts_no_faster_than_lora(beginning):
    """A null: 0.1 at a scale of 1/4 against 0.03 at 2, each the best for the accuracy at the end."""
    eva = [beginning("eva", seed, "method.alpha=1.0", "method.finetune.lr=1e-1") for seed in SEEDS]
    lora = [beginning("lora", seed, "method.finetune.lr=3e-2") for seed in SEEDS]
    assert statistics.fmean(eva) > statistics.fmean(lora)
