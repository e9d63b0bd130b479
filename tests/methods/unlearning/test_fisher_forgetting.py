"""Fisher forgetting: the variance of the noise, what happens to the rows of a forgotten class, and no noise at all."""

import pytest
import torch
from pairs import pairs
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.curvature import FisherDiagonal, fisher_diagonal
from fisherexp.methods.importance import Importance
from fisherexp.methods.unlearning.fisher_forgetting import FisherForgetting, noise_of
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)
WEIGHT = torch.randn(4, 3, dtype=torch.float64)
FISHER = 10.0 ** torch.empty(4, 3, dtype=torch.float64).uniform_(-6, 1)


def plain(fisher, alpha, is_head, forgotten):
    """The variance of row r, from its own mean over inputs."""
    rows = []
    for r in range(len(fisher)):
        v = sum(min(1 / (f.item() + 1e-8), 100 if is_head else 1000) for f in fisher[r]) / fisher.shape[1] * alpha
        v = 1e-4 if is_head and r in forgotten else v
        rows.append([10 * v if is_head else v] * fisher.shape[1])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("is_head", "forgotten"), [(False, []), (False, [1]), (True, []), (True, [1, 3])])
def test_variance_of_a_matrix(is_head, forgotten):
    mean, variance = noise_of(WEIGHT, FISHER, 1e-6, is_head, forgotten)
    torch.testing.assert_close(variance, plain(FISHER, 1e-6, is_head, forgotten))
    reset = forgotten if is_head else []
    kept = [r for r in range(4) if r not in reset]
    assert torch.equal(mean[kept], WEIGHT[kept])
    assert (mean[reset] == 0).all()


def test_variance_of_a_vector_is_ten_times_as_large_and_its_own():
    _, variance = noise_of(WEIGHT[:, 0], FISHER[:, 0], 1e-6, False, [])
    expected = torch.tensor([1e-5 * min(1 / (f.item() + 1e-8), 1000) for f in FISHER[:, 0]], dtype=torch.float64)
    torch.testing.assert_close(variance, expected)


def run(tmp_path, *overrides: str):
    small = ["method=fisher_forgetting", "model.width=4", "training.epochs=2", f"output_dir={tmp_path}"]
    bench = Workbench(composed([*small, "progress=off", *overrides]))
    fit, source = bench.method("method"), bench.reference("source").tensors
    fit.model.load_state_dict(source)
    expected = fisher_diagonal(fit.model, pairs(bench.setting.loader("retain")), labels="expected")
    bench.fit(fit, tmp_path / "run", "fit")
    return fit, source, expected


def test_without_noise_only_the_rows_of_the_forgotten_class_change(tmp_path):
    fit, source, expected = run(tmp_path, "method.alpha=0")
    for name in expected.names:
        torch.testing.assert_close(fit.fisher[name], expected[name], rtol=1e-4, atol=1e-9)
    kept = [c for c in range(10) if c != 3]
    for name, tensor in fit.model.state_dict().items():
        assert torch.equal(tensor[kept], source[name][kept]) if name.startswith("head.") else True
        assert name.startswith("head.") or torch.equal(tensor, source[name])
    assert fit.model.head.weight[3].abs().max() < 6 * 1e-3**0.5
    assert not torch.equal(fit.model.head.weight[3], source["head.weight"][3])


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_is_one_by_any_name(tied):
    """Tied to an embedding it goes by that one's, which comes first."""
    model = nn.Module()
    model.embed, model.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    if tied:
        model.head.weight = model.embed.weight
    method = FisherForgetting(model, alpha=0.0, importance=Importance(labels="sampled"))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    squares = {name: weight**2 for name, weight in before.items()}
    method.fisher, method.forgotten = FisherDiagonal(squares, None, 1), [2]
    method.edit()
    moved = {name: (weight != before[name]).all(1).tolist() for name, weight in model.named_parameters()}
    row = [False, False, True, False, False]
    assert moved == ({"embed.weight": row} if tied else {"embed.weight": 5 * [False], "head.weight": row})


def test_no_row_is_reset_when_every_class_is_retained(tmp_path):
    fit, source, _ = run(tmp_path, "method.alpha=0", "scenario=random_forgetting")
    assert fit.outcome["forgotten"] == []
    assert all(torch.equal(source[name], tensor) for name, tensor in fit.model.state_dict().items())
