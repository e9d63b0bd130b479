"""Small-scale proofs of masks from odd digits to even ones, three seeds: what they keep, what they leave out, PST."""

import statistics

import pytest
import torch
from odd_even import SEEDS, OddEven, mean

from fisherexp.adapters.masks import largest, random_entries, smallest

pytestmark = pytest.mark.proof
BUDGET = "method.by_layer={layers.1: {quantile: 0.078125}, layers.3: {quantile: 0.03125}}"  # as many as LoRA at rank 4
SARA = ("sara", "method.threshold=null", "method.quantile=0.05")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return OddEven(tmp_path_factory.mktemp("masks"))


def test_lifts_smallest_entries_keep_what_its_largest_forget(runs):
    """What the released configurations select against what the paper says, each at its rate; about as accurate."""
    small, large = runs("lift", "method.select=smallest"), runs("lift")
    assert mean(small, "kept") > mean(large, "kept") + 20
    assert abs(mean(small, "accuracy") - mean(large, "accuracy")) < 1


def test_at_its_rate_a_random_mask_keeps_no_more_than_lora(runs):
    """A null: masks are said to forget less. At 0.1, where it is most accurate, a random one keeps what LoRA does."""
    assert abs(mean(runs("random_mask"), "kept") - mean(runs("lora"), "kept")) < 15


def test_at_a_third_of_their_rate_masks_keep_what_lora_forgets_unless_they_hold_the_largest(runs):
    """The claim of SaRA, 30 points at equal count and accuracy, holds in the means at 0.03: for the smallest entries
    and for SaRA with as many. It is not the smallness: random ones do as well. The largest alone keep no more."""
    lora, rate = runs("lora"), "method.finetune.lr=3e-2"
    sara = runs(*SARA, BUDGET, "method.restart=1.0", rate)
    found = {select: runs("magnitude_mask", f"method.select={select}", rate) for select in ("smallest", "largest")}
    found |= {"sara": sara, "random": runs("random_mask", rate)}
    assert {each["trained_numbers"] for some in (lora, *found.values()) for each in some} == {4613}
    assert all(abs(mean(each, "accuracy") - mean(lora, "accuracy")) < 1 for each in found.values())
    gain = {name: mean(each, "kept") - mean(lora, "kept") for name, each in found.items()}
    assert all(gain[name] > 22 for name in ("sara", "smallest", "random"))
    assert abs(gain["smallest"] - gain["random"]) < 6
    assert gain["largest"] < 12


@pytest.mark.parametrize(("share", "lost"), [(0.5, 0.5), (0.8, 15)])
def test_the_smallest_weights_can_go_where_random_ones_cannot(runs, share, lost):
    """SaRA's premise: the smallest 80 % cost two points at most, where 80 % at random, the mean of ten draws, cost more
    than 20; of half, 1 against 1 to 2. Without the largest half it is at chance or near it."""
    for seed in SEEDS:
        bench = runs.bench("method=full", f"seed={seed}")
        source = bench.reference("source").tensors
        layers = [name for name in source if name.startswith("backbone.") and name.endswith("weight")]
        torch.manual_seed(seed)

        def kept_without(choose, bench=bench, source=source, layers=layers):
            gone = {name: choose(source[name].abs(), round(share * source[name].numel())) for name in layers}
            return runs.kept(bench, source | {name: source[name] * ~mask for name, mask in gone.items()})

        whole, random = runs.kept(bench, source), [kept_without(random_entries) for _ in range(10)]
        assert kept_without(smallest) > whole - 2.5
        assert statistics.fmean(random) < whole - lost
        assert kept_without(largest) < 50


def effective_rank(update: torch.Tensor) -> float:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(update.double())
    return torch.special.entr(values / values.sum()).sum().exp().item()


def test_saras_nuclear_norm_lowers_the_rank_of_the_update_at_equal_loss(runs):
    """Twice the published weight, a twentieth of the entries: with each seed fewer directions."""
    free, held = (runs(*SARA, f"method.penalty={weight}") for weight in (0.0, 1e-3))
    for one, other in zip(held, free, strict=True):
        ranks = [statistics.fmean(map(effective_rank, each["updates"].values())) for each in (one, other)]
        assert ranks[0] < ranks[1] - 6
        assert one["loss"] < 2e-3 > other["loss"]
    assert abs(mean(held, "loss") - mean(free, "loss")) < 3e-4
    assert abs(mean(held, "accuracy") - mean(free, "accuracy")) < 1


@pytest.mark.parametrize("rate", ["3e-3", "1e-2"])
def test_psts_scores_fit_better_than_moving_magnitudes_and_these_than_fixed_ones(runs, rate):
    """With 97 % of the entries gone, at rank 4, in each seed; accuracy in the means."""
    line = ("pst", "method.sparsity=0.97", "method.rank=4", "method.score_rank=4", f"method.finetune.lr={rate}")
    free = ("method.product=0.0", "method.sums=0.0")
    learned, moving, fixed = runs(*line), runs(*line, *free), runs(*line, *free, "method.dynamic=false")
    for one, two, three in zip(learned, moving, fixed, strict=True):
        assert one["loss"] < 0.85 * two["loss"]
        assert two["loss"] < 0.75 * three["loss"]
    assert mean(learned, "accuracy") > mean(moving, "accuracy") > mean(fixed, "accuracy") + 3
