"""Small-scale proof on repeated blocks: weights alone name the head that finds the token before, and its channels."""

import pytest

from fisherexp.config.explain import composed
from fisherexp.runs.workbench import Workbench

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Of seeds 0 to 4."""
    folder, found = tmp_path_factory.mktemp("proof"), []
    for seed in range(5):
        bench = Workbench(composed(["method=talking_heads", f"seed={seed}", f"output_dir={folder}", "progress=off"]))
        study = bench.method("method")
        source = bench.reference("source")
        study.model.load_state_dict(source.tensors)
        study.given["test_batches"] = study.needs[0].resolve(bench, study, source)[0]
        study.source_loaded()
        found.append(study.outcome)
    return found


def test_the_strongest_writer_to_keys_is_the_previous_token_head_and_hurts_most_when_silenced(outcomes):
    agreeing = 0
    for found in outcomes:
        assert found["accuracy"]["whole"] > 85
        writer, previous = found["pairs"]["k"][0]["first"], found["previous_token"]
        silenced = {head: a for head, a in found["accuracy"]["silenced"].items() if head.startswith("0.")}
        agreeing += writer == f"0.{previous.index(max(previous))}" == min(silenced, key=silenced.get)
    assert agreeing >= 4


def test_the_channels_that_keys_read_most_cost_most(outcomes):
    metrics = [found["metrics"] for found in outcomes]
    mean = lambda key: sum(each[key] for each in metrics) / len(metrics)  # noqa: E731
    assert mean("lost_top") > 3 * max(mean("lost_bottom"), 0.5)
    assert mean("lost_top") > 1.5 * mean("lost_random")
    assert all(each["k_z"] > 5 for each in metrics)
