"""Small-scale proofs of further adapters from odd digits to even ones, three seeds, each at the rate chosen for it."""

import statistics

import pytest
import torch
from first_steps import first_loss

from fisherexp.config.explain import composed
from fisherexp.metrics.weight_change import weight_change
from fisherexp.runs.finished import finished, resolve_needs
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("further_adapters")


@pytest.fixture(scope="module")
def make_bench(output_dir):
    def make(method: str, *options: str, callbacks=None) -> Workbench:
        given = ["experiment=finetuning_odd_even", f"method={method}", f"output_dir={output_dir}", *options]
        return Workbench(composed([*given, "progress=off", "threads=1"]), callbacks=callbacks)

    return make


@pytest.fixture(scope="module")
def runs(make_bench, output_dir):
    """Of each seed what a method has at the end: figures in % (accuracy on even digits; kept, that on odd ones with the
    source's head put back; share of numbers trained), and the method itself."""
    known, odd = {}, make_bench("full", "data=digits_odd").setting.parts["test"]

    def kept(method, source) -> float:
        own = {name: tensor.clone() for name, tensor in method.model.state_dict().items()}
        head = {name: tensor for name, tensor in source.items() if name.startswith("head.")}
        with torch.no_grad():
            method.model.load_state_dict(own | head)
            right = method.model.eval()(odd.inputs).argmax(1) == odd.targets
            method.model.load_state_dict(own)
        return 100 * right.float().mean().item()

    def run(name: str, *options: str) -> list[dict]:
        key = (name, *options)
        if key not in known:
            known[key] = []
            for seed in SEEDS:
                bench = make_bench(name, f"seed={seed}", *options)
                folder = output_dir / " ".join(key).replace("/", "_") / str(seed)
                method, _ = finished(bench, folder)
                found = {"accuracy": bench.test(method, folder, "test")["test_accuracy"], "method": method}
                source, end = bench.reference("source").tensors, method.model.state_dict()
                found["kept"] = kept(method, source)
                layers = [name for name in source if name.startswith("backbone.") and name.endswith("weight")]
                found["intruders"] = sum(weight_change(source[n], end[n])["intruders"].item() for n in layers)
                known[key].append(found | method.outcome["metrics"])
        return known[key]

    return run


def mean(found: list[dict], figure: str) -> float:
    return statistics.fmean(each[figure] for each in found)


NEAR_FULL = ["adalora", "eva", "sorsa", "soma", "ba_lora", "svfit", "salt", "soka"]
MASKS = ["random_mask", "magnitude_mask", "lift", "sara"]


@pytest.mark.parametrize("name", [*NEAR_FULL, *MASKS])
def test_it_comes_near_all_weights_with_few_numbers(runs, name):
    """Within two points of full fine-tuning, two above the head alone, with at most 8 % of the numbers."""
    found = runs(name)
    assert mean(runs("full"), "accuracy") - mean(found, "accuracy") < 2
    assert mean(found, "accuracy") > mean(runs("head_only"), "accuracy") + 2
    assert all(each["trained_share"] < 8 for each in found)


def test_svfit_keeps_what_lora_forgets_with_a_third_of_its_numbers(runs):
    """C: within 2 points of LoRA, far better on the source's classes (there 96 against 48)."""
    svfit, lora = runs("svfit"), runs("lora")
    assert mean(lora, "accuracy") - mean(svfit, "accuracy") < 2
    assert mean(svfit, "kept") > mean(lora, "kept") + 20
    assert all(one["trained_numbers"] < 0.4 * other["trained_numbers"] for one, other in zip(svfit, lora, strict=True))


def test_salt_needs_about_half_of_loras_numbers(runs):
    """C: within half a point at 45 % of the count; here within one, at 52 % with the head."""
    salt, lora = runs("salt"), runs("lora")
    assert mean(lora, "accuracy") - mean(salt, "accuracy") < 1
    assert all(one["trained_numbers"] < 0.55 * other["trained_numbers"] for one, other in zip(salt, lora, strict=True))


def test_soka_is_as_good_as_pissa_with_fewer_numbers(runs):
    soka, pissa = runs("soka"), runs("pissa")
    assert mean(soka, "accuracy") > mean(pissa, "accuracy") - 1
    assert all(one["trained_numbers"] < other["trained_numbers"] for one, other in zip(soka, pissa, strict=True))


def test_no_mask_is_better_than_a_random_one(runs):
    """A null: LIFT's claim over the largest entries, and theirs over random ones, does not show at this size."""
    random = mean(runs("random_mask"), "accuracy")
    for name in ("magnitude_mask", "lift", "sara"):
        assert mean(runs(name), "accuracy") <= random


def test_intruders_come_with_new_directions_and_not_with_values(runs):
    """None of the singular values alone; of LoRA one for each rank at most; AdaLoRA, which moves least, fewer."""
    assert mean(runs("svfit"), "intruders") == 0
    assert mean(runs("adalora"), "intruders") < mean(runs("lora"), "intruders") - 3
    assert all(3 <= each["intruders"] <= 2 * 4 for each in runs("lora"))


def test_full_fine_tuning_makes_no_fewer_intruders_than_lora_at_like_accuracy(runs):
    """A null of arXiv 2410.21228 at this size: both about three of twenty where each has 97 to 98 %."""
    full, lora = (runs(name, f"method.finetune.lr={lr}") for name, lr in (("full", 1e-3), ("lora", 1e-2)))
    assert abs(mean(full, "accuracy") - mean(lora, "accuracy")) < 2
    assert abs(mean(full, "intruders") - mean(lora, "intruders")) < 2


def gap(method) -> float:
    """‖PᵀP - I‖_F, the mean over layers."""
    left = [tensor for name, tensor in method.adapter_state.items() if name.endswith(".left")]
    return statistics.fmean((p.T @ p - torch.eye(p.shape[1])).norm().item() for p in left)


def test_sorsas_penalty_holds_the_vectors_orthonormal(runs):
    """With each seed at least ten times as far from it without."""
    held, free = runs("sorsa"), runs("sorsa", "method.penalty=0.0")
    for one, other in zip(held, free, strict=True):
        assert gap(other["method"]) > 10 * gap(one["method"])


def test_adaloras_ranks_are_not_shared_out_evenly(runs):
    for each in runs("adalora"):
        ranks = each["method"].outcome["ranks"].values()
        assert sum(ranks) == 8
    spread = [max(r) - min(r) for r in ([*each["method"].outcome["ranks"].values()] for each in runs("adalora"))]
    assert sum(each >= 2 for each in spread) >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_evas_first_gradient_is_longer_than_that_of_random_directions(make_bench, seed):
    """‖∂L/∂B‖ = ‖G Aᵀ‖ with G = ∂L/∂W of the source: principal rows against random ones, both orthonormal."""
    bench = make_bench("eva", f"seed={seed}")
    method, source = bench.method("method"), bench.reference("source")
    method.model.load_state_dict(source.tensors)
    resolve_needs(bench, method, source)
    method.loss(next(iter(bench.setting.loader("train")))).backward()
    generator = torch.Generator().manual_seed(seed)
    for name in method.layers():
        gradient = method.model.get_submodule(name).weight.grad
        rows = method.given["directions"].directions[name][:4].float()
        random = torch.linalg.qr(torch.randn(gradient.shape[1], 4, generator=generator))[0].T
        assert (gradient @ rows.T).norm() > 1.5 * (gradient @ random.T).norm()


def beginning(make_bench, output_dir, name: str, seed: int) -> float:
    """Mean loss of the first 20 steps at a constant rate, the same for all."""
    options = ["method.finetune.lr=1e-2", "method.finetune.schedule=constant", "method.finetune.epochs=2"]
    folder = output_dir / "beginning" / name / str(seed)
    return first_loss(make_bench(name, f"seed={seed}", *options), folder, seed)


@pytest.mark.parametrize("name", ["miss", "bat"])
def test_shards_start_faster_than_lora(make_bench, output_dir, name):
    """C: 1.53 and 1.54 against 1.78; here with at least two of three seeds."""
    pairs = [[beginning(make_bench, output_dir, each, seed) for each in (name, "lora")] for seed in SEEDS]
    assert sum(one < lora for one, lora in pairs) >= 2
