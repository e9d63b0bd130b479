"""Online EWC: what the running Fisher is made of."""

import pytest
import torch


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.0])
def test_the_running_fisher_is_the_discounted_sum_around_the_latest_solution(make_bench, gamma, tmp_path):
    """λ = 0: EWC and its running form then pass through the same solutions."""
    ewc, online = (
        make_bench("ewc", "method.lambda_=0"),
        make_bench("online_ewc", "method.lambda_=0", f"method.gamma={gamma}"),
    )
    found = []
    for number, bench in enumerate((ewc, online)):
        method = bench.method("method")
        method.model.load_state_dict(ewc.method("method").model.state_dict())
        bench.fit(method, tmp_path / str(number), "fit")
        found.append(method.memory["anchors"])
    (one, two), (running,) = found
    for name, omega in running["omega"].items():
        torch.testing.assert_close(omega, gamma * one["omega"][name] + two["omega"][name])
        assert torch.equal(running["anchor"][name], two["anchor"][name])
