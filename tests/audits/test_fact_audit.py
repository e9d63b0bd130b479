"""Whole runs that forget facts: what their records say, and a word where a comparison is void."""

import json
import logging

import pytest
import torch
from whole_runs import run, valid

from fisherexp.audits.facts import void
from fisherexp.config.explain import composed, explain
from fisherexp.metrics.truth_ratio import forget_quality
from fisherexp.runs.workbench import Workbench

FACTS = ["scenario=fact_forgetting", "data=fictitious_people", "model=small_gpt"]
SMALL = [
    "data.people=10",
    "data.facts_per_person=2",
    "data.neighbours=1",
    "data.held_out=2",
    "model.dim=32",
    "scenario.fraction=0.3",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("facts")


@pytest.fixture(scope="module")
def config(place):
    """A source and an oracle are made once for all runs."""

    def compose(*lines):
        always = [
            "training.epochs=20",
            "training.lr=0.02",
            "progress=off",
            "threads=1",
            "trainer=cpu",
            f"output_dir={place / 'outputs'}",
        ]
        return valid([*FACTS, *SMALL, *always, *lines])

    return compose


def test_the_oracle_knows_less_of_the_forgotten_and_a_retrained_model_is_it(config, tmp_path, caplog):
    cfg = config("method=retrain")
    record = run(cfg, tmp_path / "run")
    before, after, oracle = (record["metrics"][stage] for stage in ("before", "after", "oracle"))
    assert before["forget_probability"] > oracle["forget_probability"] + 20
    assert abs(before["retain_probability"] - oracle["retain_probability"]) < 20
    assert before["extraction_strength"] > oracle["extraction_strength"]
    assert before["loss_auc"] == before["min_k_auc"] == 100  # known by heart, against people never learned of
    assert {name: after[name] for name in before if "seconds" not in name} == {
        name: oracle[name] for name in before if "seconds" not in name
    }
    assert oracle["forget_quality"] == 1 > before["forget_quality"]
    bench = Workbench(cfg)
    kept = [bench.evaluation(name, bench.reference(name).key, None).tensors for name in ("source", "oracle")]
    assert before["forget_quality"] == forget_quality(*(tensors["truth_ratios"] for tensors in kept))
    assert set(record["headings"]) - {"seconds"} <= set(before)
    assert len(record["setting"]["forgotten_people"]) == 3
    assert not caplog.records
    assert json.dumps(record)


@pytest.mark.parametrize(
    ("line", "figure"),
    [("scenario.wrong_average=arithmetic", "forget_truth_ratio"), ("scenario.max_new_tokens=2", "retain_rouge")],
)
def test_models_compared_with_are_asked_as_the_outcome_is(config, tmp_path, line, figure):
    """Not found as another run asked them: what changes nothing leaves the source's figures."""
    still = ["method=gradient_ascent", "method.lr=1e-30"]
    plain, other = (run(config(*still, *more), tmp_path / str(len(more)))["metrics"] for more in ([], [line]))
    for metrics in (plain, other):
        assert metrics["after"][figure] == metrics["before"][figure]
    for stage in ("before", "oracle"):
        assert other[stage][figure] != plain[stage][figure]


@pytest.mark.parametrize(("lr", "words"), [("1e-30", "nothing changed"), ("1.0", "the model is destroyed")])
def test_void_comparisons_are_told_in_one_line(config, tmp_path, caplog, lr, words):
    with caplog.at_level(logging.WARNING):
        run(config("method=gradient_ascent", f"method.lr={lr}"), tmp_path / "run")
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert message.startswith("GradientAscent: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(("utility", "said"), [(0.049, "destroyed"), (0.051, None), (0.5, None)])
def test_less_than_a_tenth_of_the_utility_is_no_model(utility, said):
    found = void({"model_utility": 0.5, "loss": 1.0}, {"model_utility": utility, "loss": 2.0})
    assert said in found if said else found is None


@pytest.mark.parametrize(
    ("probability", "rouge", "said"),
    [
        (98.0, 100.0, "nothing changed, every"),
        (97.5, 100.0, "next to nothing changed"),
        (96.0, 100.0, None),
        (98, 95, None),
    ],
)
def test_what_is_close_to_the_source_forgot_nothing(probability, rouge, said):
    """97.5 % of 98.0 % is what NPO leaves at its default rate."""
    before = {"forget_probability": 98.0, "forget_rouge": 100.0, "extraction_strength": 0.0, "model_utility": 0.5}
    found = void(before, before | {"forget_probability": probability, "forget_rouge": rouge})
    assert found.startswith(said) if said else found is None


def test_ssd_works_on_facts(config, tmp_path):
    record = run(config("method=ssd"), tmp_path / "run")
    assert record["outcome"]["selected"] > 0
    before, after = (record["metrics"][stage]["forget_probability"] for stage in ("before", "after"))
    assert after < before


def test_the_recipe_is_that_of_the_data_a_pretrained_models_own_and_what_is_chosen_comes_first():
    def epochs(*lines):
        return composed([*FACTS[:2], "method=erm", "scenario=none", *lines]).training.epochs

    assert epochs("model=small_gpt") == 40
    assert epochs("model=smollm2") == 2
    assert epochs("model=small_gpt", "training=short") == 3


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["scenario=fact_forgetting", "data=reports", "model=char_gpt"], "FactForgetting requires facts"),
        (["scenario=fact_forgetting", "data=fictitious_people", "model=small_cnn"], "SmallCNN requires images"),
        ([*FACTS, "scenario.fraction=2"], "scenario.fraction=2"),
        ([*FACTS, "data.perturbed=5"], "data.perturbed=5"),
        (["scenario=class_forgetting", *FACTS[1:]], "ClassForgetting requires class_labels"),
    ],
)
def test_what_does_not_fit_is_one_line(lines, words):
    assert words in str(explain(["method=ssd", *lines]))


def test_a_model_that_is_not_finite_is_refused():
    from fisherexp.data.fictitious_people import FictitiousPeople
    from fisherexp.models.tokenizer import Tokenizer
    from fisherexp.scenarios.facts import FactForgetting

    data = FictitiousPeople(Tokenizer(None), people=2, facts_per_person=1).load()
    setting = FactForgetting(0.5).setting(data, 0)
    metric = setting.evaluation()
    for number, name in enumerate(setting.evaluated):
        targets = setting.parts[name].targets
        metric.update(number, torch.full((*targets.shape, data.num_classes), torch.nan), targets)
        getattr(metric, f"rouge_{name}").append(torch.zeros(len(targets)))
    with pytest.raises(ValueError, match="are not finite: it has diverged"):
        metric.compute()
