"""Small-scale proof of gradient and Hessian alignment on Colored MNIST: what predicts in all domains wins over color.

The reduced protocol of docs/results/domain_generalization.md, some six minutes of one core a seed. Margins on the
target and between it and training were fixed before any run; those on gray images, Hessians, transfer after one seed.
"""

import pytest

from fisherexp.config.explain import composed
from fisherexp.data.datamodule import data_folder
from fisherexp.experiment import run_experiment

MNIST = data_folder(None) / "MNIST" / "raw"
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST at {MNIST} (data=colored_mnist downloads it)"),
]


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed {}".format)
def run(request, tmp_path_factory):
    """Metrics and the last record of `domain_watch` of a method; each is run once."""
    output_dir, found = tmp_path_factory.mktemp("colored_mnist"), {}

    def result(method: str) -> tuple[dict[str, float], dict[str, float]]:
        if method not in found:
            line = ["experiment=colored_mnist_small", f"method={method}", f"seed={request.param}"]
            line += ["callbacks=[domain_watch]", "callbacks.domain_watch.every=1000"]
            line += [f"output_dir={output_dir}", "progress=off", "threads=1"]
            record = run_experiment(composed(line), output_dir / method, line)
            found[method] = record["metrics"]["after"], record["outcome"]["domain_watch"][-1]
        return found[method]

    return result


@pytest.mark.parametrize("method", ["hgp", "hutchinson"])
def test_alignment_prefers_what_holds_in_all_domains(run, method):
    (plain, before), (aligned, after) = run("domain_erm"), run(method)
    assert aligned["target_accuracy"] >= 55
    assert aligned["target_accuracy"] >= plain["target_accuracy"] + 30
    assert abs(aligned["train_accuracy"] - aligned["target_accuracy"]) <= 15
    assert aligned["gray_accuracy"] >= plain["gray_accuracy"] - 6
    # Closer to the target as well, which no method has seen: Hessians, and what a head may lose there.
    assert after["frobenius_target"] <= 0.7 * before["frobenius_target"]
    assert after["transfer"] <= 0.7 * before["transfer"]
