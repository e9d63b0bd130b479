"""AlignGuard-LoRA: the parts of an update, its terms against their formulas, and which of them can do anything."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fisherexp.data.batch import Batch
from fisherexp.methods.alignment import coherence, largest_entries, overlap, top_eigenvectors
from fisherexp.methods.continual_learning.rows import row_fisher
from fisherexp.methods.continual_learning.sequential_lora import attach, updates

torch.manual_seed(0)
ROOT = torch.randn(8, 8).double()
FISHER = ROOT @ ROOT.T
UPDATE = torch.randn(8, 5).double()


def test_row_fisher_against_one_backward_pass_per_image():
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(), nn.Linear(5, 3)).double()
    images, labels = torch.randn(11, 6).double(), torch.randint(3, (11,))
    found = row_fisher(net, [Batch(images[:4], labels[:4]), Batch(images[4:], labels[4:])])
    assert net.training
    net.eval()
    for name in ("0", "3"):
        layer = net.get_submodule(name)
        expected = torch.zeros_like(found[name])
        for image, label in zip(images, labels, strict=True):
            (g,) = torch.autograd.grad(functional.cross_entropy(net(image[None]), label[None]), layer.weight)
            expected += g @ g.T / len(images)
        torch.testing.assert_close(found[name], expected)


def test_row_fisher_of_a_layer_along_a_sequence():
    class OverPositions(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x).square().sum(1)

    net = OverPositions().double()
    sequences, labels = torch.randn(5, 7, 4).double(), torch.randint(3, (5,))
    expected = torch.zeros(3, 3).double()
    for one, label in zip(sequences, labels, strict=True):
        (g,) = torch.autograd.grad(functional.cross_entropy(net(one[None]), label[None]), net.layer.weight)
        expected += g @ g.T / 5
    torch.testing.assert_close(row_fisher(net, [Batch(sequences, labels)])["layer"], expected)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_eigenvectors_project(share):
    u = top_eigenvectors(FISHER, share)
    assert u.shape == (8, max(1, round(8 * share)))
    projector = u @ u.T
    torch.testing.assert_close(projector @ projector, projector)
    kept = torch.linalg.eigvalsh(FISHER)[-u.shape[1] :].sum()
    torch.testing.assert_close((projector @ FISHER).trace(), kept)
    if share == 1.0:
        torch.testing.assert_close(projector @ UPDATE, UPDATE)


def test_damping_is_a_sum_over_eigenpairs():
    u = top_eigenvectors(FISHER, 0.5)
    aligned = u @ (u.T @ UPDATE)
    values = torch.linalg.eigvalsh(FISHER)[-4:]
    expected = sum(value * (u[:, i] @ UPDATE).square().sum() for i, value in enumerate(values))
    torch.testing.assert_close((aligned * (FISHER @ aligned)).sum(), expected)


def test_mask_has_the_largest_entries():
    values = torch.tensor([[3.0, 1.0], [4.0, 2.0]])
    assert largest_entries(values, 0.5).tolist() == [[True, False], [True, False]]
    assert largest_entries(values, 0.0).sum() == 1


def test_overlap_and_coherence_entry_by_entry():
    a, t, w = torch.randn(3, 4, 2).double()
    eta = [[1 + 0.5 / (1 + torch.exp(torch.tensor(0.2) - x.abs())) for x in row] for row in w]
    expected = sum(eta[i][j] * abs(a[i, j] * t[i, j]) for i in range(4) for j in range(2))
    torch.testing.assert_close(overlap(a, t, w, beta=0.5, tau=0.2), expected, rtol=1e-6, atol=0)
    assert coherence(a, -3 * a).item() == pytest.approx(1)
    cosine = functional.cosine_similarity(a.flatten(), t.flatten(), dim=0)
    assert coherence(a, t).item() == pytest.approx(cosine.item() ** 2)


def trained(make_bench, folder, *options):
    bench = make_bench("alignguard_lora", "method.rank=4", "model.hidden=[12,8]", *options)
    method = bench.method("method")
    bench.fit(method, folder, "fit")
    return method


IDLE = {"eig": {"coherence"}, "mask": {"overlap", "coherence"}, "two_adapters": set()}


@pytest.mark.parametrize("split", IDLE)
def test_the_record_says_which_terms_did_nothing(make_bench, split, tmp_path):
    """With a projector the two parts are orthogonal, with a mask they share no coordinate."""
    method = trained(make_bench, tmp_path, f"method.split={split}", "training.lr=1e-2", "method.lr=1e-2")
    terms = method.outcome["terms"]
    assert {name for name, term in terms.items() if not term["active"]} == IDLE[split]
    assert set(terms) == {"alignment", "task", "overlap", "coherence"}


@pytest.mark.parametrize("damping", ["rows", "diagonal"])
@pytest.mark.parametrize("split", ["eig", "mask"])
def test_parts_add_up_and_the_damping_is_that_of_the_fisher(make_bench, split, damping, tmp_path):
    method = trained(make_bench, tmp_path, f"method.split={split}", f"method.damping={damping}")
    attach(method.model, 3, 3.0)
    with torch.no_grad():
        for p in method.model.parameters():
            if p.requires_grad:
                p.normal_()
    expected = 0.0
    for name, found in updates(method.model).items():
        aligned, rest = method.parts(name, found)
        torch.testing.assert_close(aligned + rest, found[0])
        if damping == "rows":
            expected += (aligned.T @ method.memory["rows"][name] @ aligned).trace()
        else:
            expected += (method.memory["diagonal"][f"{name}.weight"] * aligned**2).sum()
    torch.testing.assert_close(method.terms()["alignment"], expected, rtol=1e-4, atol=1e-6)


def test_the_whole_share_leaves_nothing_for_the_rest(make_bench, tmp_path):
    method = trained(make_bench, tmp_path, "method.share=1.0")
    assert method.outcome["terms"]["task"]["largest"] < 1e-9


def test_former_tasks_add_up(make_bench, tmp_path):
    """The trace of the row Fisher is that of the diagonal one: both are mean squared gradients."""
    method = trained(make_bench, tmp_path)
    for name, matrix in method.memory["rows"].items():
        torch.testing.assert_close(matrix.trace(), method.memory["diagonal"][f"{name}.weight"].sum(), rtol=1e-3, atol=0)


def test_at_zero_strength_it_is_lora_bit_for_bit(same_as_sequential_lora):
    zero = [f"method.{name}=0" for name in ("lambda_", "lambda_t", "lambda_nc")]
    assert same_as_sequential_lora("alignguard_lora", *zero)
    assert not same_as_sequential_lora("alignguard_lora", *zero[1:])
