"""L2-SP: what is held, what decays."""

import torch


def fitted(bench, folder):
    method = bench.method("method")
    bench.fit(method, folder, "fit")
    return method


def test_a_shared_head_is_held_with_the_rest(make_bench, tmp_path):
    method = fitted(make_bench("l2_sp"), tmp_path)
    (anchor,) = method.memory["anchors"]
    assert set(anchor["anchor"]) == {name for name, _ in method.model.named_parameters()}
    assert all((omega == 1).all() for omega in anchor["omega"].values())


def test_a_new_head_is_free_and_decays(make_bench, tmp_path):
    loose, decayed = (
        fitted(make_bench("l2_sp", "method.head=new", "training.lr=0.02", f"method.beta={beta}"), tmp_path / str(beta))
        for beta in (0, 10)
    )
    assert not any(name.startswith("head.") for name in loose.memory["anchors"][0]["omega"])
    norms = [torch.cat([p.flatten() for p in m.model.head.parameters()]).norm() for m in (loose, decayed)]
    assert norms[1] < 0.5 * norms[0]


def test_the_loss_is_the_formula(make_bench, tmp_path):
    bench = make_bench("l2_sp", "method.head=new", "method.beta=0.3", "method.lambda_=0.7")
    method = fitted(bench, tmp_path)
    images = bench.setting.tasks["plain"].parts["train"]
    found = method.loss(images.batch)
    w, start = dict(method.model.named_parameters()), method.memory["anchors"][0]["anchor"]
    expected = torch.nn.functional.cross_entropy(method.model(images.inputs), images.targets)
    expected = expected + 0.7 / 2 * sum((w[name] - p).square().sum() for name, p in start.items())
    expected = expected + 0.3 / 2 * sum(p.square().sum() for name, p in w.items() if name.startswith("head."))
    torch.testing.assert_close(found, expected)
