"""EWC: which Fisher, around what, and that two Gaussian tasks become one."""

import pytest
import torch
from torch import nn

from fisherexp.curvature import fisher_diagonal
from fisherexp.methods.continual_learning.anchored import quadratic


def test_two_linear_gaussian_tasks_are_learned_as_if_together():
    """With orthogonal inputs the Fisher of the first task is diagonal, and λ = n_1 / n_2 weighs it as its data do."""
    torch.manual_seed(0)
    d, n = 5, (20, 30)
    first, second = torch.linalg.qr(torch.randn(n[0], d).double())[0] * 3, torch.randn(n[1], d).double()
    y = [torch.randn(count).double() for count in n]
    model = nn.Linear(d, 1, bias=False).double()
    model.weight.data = torch.linalg.lstsq(first, y[0][:, None]).solution.T
    anchor = {"weight": model.weight.detach().clone()}
    fisher = fisher_diagonal(model, [(first, y[0][:, None])], loss="gaussian", labels="expected")
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        task = (model(second)[:, 0] - y[1]).square().mean() / 2
        value = task + n[0] / n[1] / 2 * quadratic(dict(model.named_parameters()), dict(fisher.items()), anchor)
        value.backward()
        return value

    optimizer.step(loss)
    together = torch.linalg.lstsq(torch.cat([first, second]), torch.cat(y)[:, None]).solution.T
    torch.testing.assert_close(model.weight.detach(), together, rtol=1e-6, atol=1e-8)


def learned(bench, folder):
    method = bench.method("method")
    bench.fit(method, folder, "fit")
    return method


def at_anchor(bench, anchor):
    model = bench.method("method").model
    model.load_state_dict(anchor, strict=False)
    return model.eval()


@pytest.mark.parametrize("labels", ["expected", "empirical", "pseudo", "sampled"])
def test_each_anchor_has_the_fisher_of_its_own_task_at_its_own_solution(make_bench, labels, tmp_path):
    """The oracle goes through each image on its own by autograd, over all labels with their probabilities."""
    bench = make_bench("ewc", f"method.importance.labels={labels}")
    anchors = learned(bench, tmp_path).memory["anchors"]
    assert len(anchors) == 2
    for anchor, task in zip(anchors, bench.setting.tasks.values(), strict=False):
        images = task.parts["train"]
        model = at_anchor(bench, anchor["anchor"])
        found = anchor["omega"]["head.bias"]
        p = model(images.inputs).softmax(1)
        if labels == "expected":
            expected = (p - p**2).mean(0)  # of the bias of a softmax: Σ_y p_y (p - e_y)² = p - p²
        elif labels == "sampled":
            # Of 256 draws; four standard deviations of the mean of (p - e_y)².
            expected, spread = (p - p**2).mean(0), 4 * ((p - p**2).mean(0) / len(p)).sqrt()
            assert ((found - expected).abs() < spread).all()
            continue
        else:
            y = images.targets if labels == "empirical" else p.argmax(1)
            expected = (p - nn.functional.one_hot(y, 10)).square().mean(0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)


def test_batch_mean_squares_the_gradient_of_each_batch(make_bench, tmp_path):
    options = ("method.importance.gradients=batch_mean", "method.importance.labels=empirical")
    bench = make_bench("ewc", *options, "method.importance.batch_size=32")
    anchor = learned(bench, tmp_path).memory["anchors"][0]
    images = bench.setting.tasks["plain"].parts["train"]
    model = at_anchor(bench, anchor["anchor"])
    residuals = model(images.inputs).softmax(1) - nn.functional.one_hot(images.targets, 10)
    expected = torch.stack([batch.mean(0).square() for batch in residuals.split(32)]).mean(0)
    torch.testing.assert_close(anchor["omega"]["head.bias"], expected, rtol=1e-4, atol=1e-9)


def test_no_mean_gradient_under_expected_labels(make_bench):
    with pytest.raises(Exception, match="expected has no batch_mean"):
        make_bench("ewc", "method.importance.gradients=batch_mean").method("method")
