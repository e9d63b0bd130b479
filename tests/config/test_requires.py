"""Data, model, scenario and method combine by what each requires and provides; where they do not, one line says so."""

import pytest

from fisherexp.config.explain import explain

TEXT = ["data=reports", "model=char_gpt"]


@pytest.mark.parametrize("method", ["erm", "adam", "m_fac", "fisher", "kfac", "low_rank_fisher", "magnitude_pruning"])
def test_what_asks_nothing_of_samples_takes_text(method):
    assert explain([*TEXT, f"method={method}", "scenario=none"]) == []


@pytest.mark.parametrize(
    "method", ["ssd", "assd", "lfssd", "finetune", "gradient_ascent", "neggrad_plus", "scrub", "bad_teacher", "retrain"]
)
def test_unlearning_that_knows_no_classes_takes_text(method):
    assert explain([*TEXT, f"method={method}", "scenario=random_forgetting"]) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["method=ssd", "scenario=class_forgetting"],
            ["ClassForgetting requires class_labels", "scenario=random_forgetting"],
        ),
        (
            ["method=mixup", "scenario=none"],
            ["Mixup requires floats and class_labels, Reports provides features and tokens"],
        ),
        (["method=salun", "scenario=random_forgetting"], ["Salun requires class_labels"]),
        (["method=eata", "scenario=continual"], ["Continual requires images and class_labels"]),
        (["method=erm", "scenario=none", "model=small_cnn"], ["SmallCNN requires images", "model=char_gpt"]),
    ],
)
def test_what_is_missing_is_named(lines, words):
    problems = "\n".join(map(str, explain([*TEXT, *lines])))
    assert all(word in problems for word in words), problems
