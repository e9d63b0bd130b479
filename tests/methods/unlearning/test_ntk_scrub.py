"""NTK scrubbing: its Jacobian, its step against the kernel form, and the linear model, for which it is exact."""

import pytest
import torch
from torch import nn

from fisherexp.config.explain import composed
from fisherexp.methods.unlearning.ntk_scrub import NTKScrub, jacobian, ridge_step
from fisherexp.runs.workbench import Workbench

torch.manual_seed(0)


def test_jacobian_is_that_of_autograd():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double().eval()
    images, weights = torch.randn(6, 4, dtype=torch.float64), list(model.parameters())
    found = jacobian(model, images)
    for sample, image in enumerate(images):
        for c in range(3):
            row = torch.autograd.grad(model(image[None])[0, c], weights)
            torch.testing.assert_close(found[sample, c], torch.cat([part.flatten() for part in row]))


@pytest.mark.parametrize("penalty", [0.1, 30.0])
def test_step_equals_that_of_the_kernel(penalty):
    """(JᵀJ + λI)⁻¹ Jᵀ r = Jᵀ (JJᵀ + λI)⁻¹ r, the form of the official code."""
    rows, residual = torch.randn(40, 17, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
    kernel = rows @ rows.T + penalty * torch.eye(40, dtype=torch.float64)
    expected = rows.T @ torch.linalg.solve(kernel, residual)
    torch.testing.assert_close(ridge_step(rows.T @ rows, rows.T @ residual, penalty), expected)


def test_a_linear_model_moves_from_one_ridge_solution_to_the_other(tmp_path):
    """Trained on D by ridge regression around its first weights, it ends as if trained on D_r alone."""
    overrides = ["method=ntk_scrub", "model=mlp", "model.hidden=[]", f"output_dir={tmp_path}", "progress=off"]
    bench = Workbench(composed(overrides))
    scrub, setting = bench.method("method"), bench.setting
    initial = {name: tensor.clone() for name, tensor in scrub.model.state_dict().items()}

    def solution(part: str) -> torch.Tensor:
        images, labels = setting.parts[part].inputs, setting.parts[part].targets
        x = scrub.model.features(images).double()
        x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        first = torch.cat([initial["head.weight"], initial["head.bias"][:, None]], 1).double().T
        wanted = nn.functional.one_hot(labels, 10) - x @ first
        penalty = scrub.weight_decay * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
        return first + torch.linalg.solve(x.T @ x + penalty, x.T @ wanted)

    def head(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        return initial | {"head.weight": matrix[:-1].T.float(), "head.bias": matrix[-1].float()}

    scrub.model.load_state_dict(head(solution("train")))
    scrub.given["initial"] = initial
    bench.fit(scrub, tmp_path / "run", "fit")
    for name, tensor in head(solution("retain")).items():
        torch.testing.assert_close(scrub.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_larger_models_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^ntk_scrub solves for all pairs of weights, and the model has 110 of them"):
        NTKScrub(nn.Linear(10, 10), weight_decay=0.1, batch_size=8, max_weights=100)
