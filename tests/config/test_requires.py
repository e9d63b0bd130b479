"""Data, model, scenario and method combine by what each requires and provides; where they do not, one line says so."""

import pytest

from fisherexp.config.explain import composed, explain

TEXT = ["data=reports", "model=char_gpt"]


@pytest.mark.parametrize("method", ["erm", "adam", "m_fac", "fisher", "kfac", "low_rank_fisher", "magnitude_pruning"])
def test_what_asks_nothing_of_samples_takes_text(method):
    assert explain([*TEXT, f"method={method}", "scenario=none"]) == []


UNLEARNING = [
    "ssd",
    "assd",
    "lfssd",
    "finetune",
    "gradient_ascent",
    "neggrad_plus",
    "scrub",
    "bad_teacher",
    "retrain",
    "satimp",
    "inverted_hinge",
    "gradient_difference",
    "kl_unlearning",
    "npo",
    "simnpo",
]


@pytest.mark.parametrize("method", UNLEARNING)
def test_unlearning_that_knows_no_classes_takes_text(method):
    assert explain([*TEXT, f"method={method}", "scenario=random_forgetting"]) == []


@pytest.mark.parametrize("method", ["satimp", "npo"])
def test_one_of_two_is_enough(method):
    lines = [f"method={method}", "scenario=random_forgetting", "data=digits", "model=small_cnn"]
    assert explain(lines) == []
    (problem,) = explain([*lines, "data=friedman", "model=mlp"])
    assert "requires class_labels or next_tokens, Friedman provides features and floats" in str(problem)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["method=ssd", "scenario=class_forgetting"],
            ["ClassForgetting requires class_labels", "scenario=random_forgetting"],
        ),
        (
            ["method=mixup", "scenario=none"],
            ["Mixup requires floats and class_labels, Reports provides features and next_tokens and tokens"],
        ),
        (["method=salun", "scenario=random_forgetting"], ["Salun requires class_labels"]),
        (["method=eata", "scenario=continual"], ["Continual requires images and class_labels"]),
        (["method=erm", "scenario=none", "model=small_cnn"], ["SmallCNN requires images", "model=char_gpt"]),
    ],
)
def test_what_is_missing_is_named(lines, words):
    problems = "\n".join(map(str, explain([*TEXT, *lines])))
    assert all(word in problems for word in words), problems


CAUSAL = "model.task=causal_lm"


@pytest.mark.parametrize(
    ("data", "task"), [("text_files", "causal_lm"), ("jsonl_instructions", "causal_lm"), ("sst2", "classification")]
)
def test_the_task_of_a_pretrained_transformer_is_that_of_the_data(data, task):
    assert composed(["method=erm", "model=smollm2", f"data={data}"]).model.task == task


@pytest.mark.parametrize(
    ("lines", "option", "near"),
    [
        (["data=sst2", "model=smollm2", CAUSAL], CAUSAL, "model.task=classification"),
        (["data=sst2", "model=smollm2"], None, None),  # the control
        (["data=text_files", "model=smollm2", "model.task=classification"], "model.task=classification", CAUSAL),
        (["data=text_files", "model=minilm"], "model", "model=huggingface"),
        (["data=text_files", "model=char_gpt"], "model", "model=huggingface"),
        (["data=tiny_shakespeare", "model=smollm2"], "model", "model=char_gpt"),
    ],
)
def test_a_task_that_the_data_are_not_for_is_one_line(lines, option, near):
    problems = explain(["method=erm", "scenario=none", "data.path=it", *lines])
    assert [(problem.option, problem.nearest) for problem in problems] == ([(option, near)] if option else [])


SUMMED, CLIPPED = "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0"


@pytest.mark.parametrize(
    "line",
    [
        "method=ssd",
        "method=assd",
        "method=lfssd",
        "method=ntk_scrub",
        "method=fisher_merging",
        "method=weight_matching",
        "method=magnitude_pruning",
        "method=fwsvd",
        "method=fish",
        "method=tent",
    ],
)
def test_what_steps_by_itself_refuses_gradients_summed_or_clipped(line):
    options = [(problem.option, problem.nearest) for problem in explain([line, SUMMED, CLIPPED])]
    assert options == [(SUMMED, "trainer.accumulate_grad_batches=1"), (CLIPPED, "trainer.gradient_clip_val=null")]
    assert explain([line]) == []


@pytest.mark.parametrize("method", ["erm", "fisher", "npo", "loku", "lora", "m_fac", "si"])
def test_what_takes_steps_of_the_trainer_accepts_both(method):
    assert explain([f"method={method}", SUMMED, CLIPPED]) == []


@pytest.mark.parametrize(
    ("lines", "option", "near"),
    [
        (["callbacks=[neural_collapse]"], None, None),
        (
            [*TEXT, "callbacks=[neural_collapse,gradient_norms]"],
            "callbacks.neural_collapse",
            "callbacks=[gradient_norms]",
        ),
        ([*TEXT, "callbacks=[gradient_norms]"], None, None),
    ],
)
def test_a_callback_that_mixes_inputs_refuses_tokens(lines, option, near):
    problems = explain(["method=erm", "scenario=none", *lines])
    assert [(problem.option, problem.nearest) for problem in problems] == ([(option, near)] if option else [])


SHARES, DDP = "trainer.strategy=fsdp", "trainer.strategy=ddp"


@pytest.mark.parametrize(
    ("lines", "option", "near"),
    [
        (["method=erm"], None, None),
        (["method=erm", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0"], None, None),
        (["method=ssd"], SHARES, DDP),
        (["method=temp_balance"], SHARES, DDP),  # plain training that looks at weights
        (["method=erm", "callbacks=[neural_collapse]"], SHARES, DDP),
        (["method=erm", "callbacks=[gradient_norms]", "callbacks.gradient_norms.during=fit"], SHARES, DDP),
        (["method=erm", "callbacks=[gradient_norms]"], None, None),  # in the test loop, where weights are whole
        (["method=erm", "trainer.precision=16-mixed"], "trainer.precision=16-mixed", "trainer.precision=bf16-mixed"),
        (["method=erm", "trainer.devices=auto"], "trainer.devices=auto", "trainer.devices=2"),
    ],
)
def test_what_needs_whole_weights_refuses_shares(lines, option, near):
    problems = explain(["trainer=fsdp", *lines])
    assert [(problem.option, problem.nearest) for problem in problems] == ([(option, near)] if option else [])
    others = [line for line in lines if line != "trainer.devices=auto"]
    assert explain(["trainer=ddp", *others]) == []
