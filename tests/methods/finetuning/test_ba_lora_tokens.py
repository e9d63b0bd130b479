"""BA-LoRA's penalties on a language model: of each token that is to be predicted, and of no padding."""

import copy

import pytest
import torch
from torch.nn import functional as F

from fisherexp.config.explain import composed
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning import output_penalties as penalties
from fisherexp.objectives.token_prediction import IGNORED, TokenPrediction
from fisherexp.runs.finished import finished
from fisherexp.runs.workbench import Workbench

GENERATIVE = ["method.distance=kl", "method.variety=entropy"]
NONE = {"consistency": 0.0, "diversity": 0.0, "spectrum": 0.0}
TOKENS, CONTEXT, PADDED = 4, 8, 3


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Of a GPT of a few characters, source and target the same text."""
    folder = tmp_path_factory.mktemp("ba_lora")
    text = folder / "text.txt"
    text.write_text("abacabad" * 100, encoding="utf-8")
    data = ["data=characters", f"data.path={text}", f"data.context={CONTEXT}", "data.batch_size=16"]
    source = ["source=trained", "data@source.data=characters", f"source.data.path={text}"]
    model = ["model=char_gpt", "model.dim=16", "model.heads=2", "model.depth=1", "model.tied=false"]
    always = ["scenario=none", "training.epochs=1", "method.finetune.epochs=1", "progress=off", "threads=1"]

    def make(*options):
        line = ["method=ba_lora", *data, *source, f"source.data.context={CONTEXT}", *model, *always]
        return Workbench(composed([*line, f"output_dir={folder / 'outputs'}", *options]))

    return make


@pytest.fixture(scope="module")
def begun(bench):
    """The method before its fit, in float64, its outputs a little away from the teacher's."""

    def make(*options):
        torch.manual_seed(0)
        method = bench(*options).method("method").double()
        method.objective = TokenPrediction()
        method.source_loaded()
        with torch.no_grad():
            for parameter in method.model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        method.weights = dict(NONE)
        method.teacher.eval()
        return method

    return make


@pytest.fixture
def batch():
    """Two sequences, the last places of the second one padding."""
    tokens = torch.randint(TOKENS, (2, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
    targets = tokens[:, 1:].clone()
    targets[1, -PADDED:] = IGNORED
    return Batch(tokens[:, :-1].clone(), targets)


def gradients(method, batch):
    method.zero_grad()
    method.loss(batch).backward()
    return torch.cat([p.grad.flatten() for p in method.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("options", [GENERATIVE, []], ids=["kl and entropy", "mse and covariance"])
@pytest.mark.parametrize("term", NONE)
def test_each_term_changes_the_gradient(term, options, begun, batch):
    method = begun(*options)
    plain = gradients(method, batch)
    method.weights[term] = 1.0
    assert (gradients(method, batch) - plain).norm() > 1e-4 * plain.norm() > 0


@pytest.mark.parametrize("options", [GENERATIVE, []], ids=["kl and entropy", "mse and covariance"])
@pytest.mark.parametrize("term", NONE)
def test_padding_does_not_count(term, options, begun, batch):
    """Other tokens at the places of padding, which the causal network shows to no place before them."""
    method = begun(*options)
    method.weights[term] = 10.0
    other = copy.deepcopy(batch)
    other.inputs[1, -PADDED:] = (other.inputs[1, -PADDED:] + 1) % TOKENS
    torch.testing.assert_close(gradients(method, other), gradients(method, batch), rtol=1e-12, atol=1e-14)
    for each in (batch, other):  # the control: the same places, to be predicted
        each.targets[1, -PADDED:] = 0
    assert (gradients(method, other) - gradients(method, batch)).norm() > 1e-4


def test_the_terms_are_those_of_all_tokens_in_a_row(begun, batch):
    """Against torch, on the logits of the tokens that are counted."""
    method = begun(*GENERATIVE)
    counted = batch.targets != IGNORED
    rows, taught = method.model(batch.inputs)[counted], method.teacher(batch.inputs)[counted]
    task = F.cross_entropy(rows, batch.targets[counted])
    torch.testing.assert_close(method.loss(batch), task)
    given, values = torch.distributions.Categorical(logits=rows), torch.linalg.svdvals(rows)
    wanted = {
        "consistency": torch.distributions.kl_divergence(torch.distributions.Categorical(logits=taught), given).mean(),
        "diversity": -given.entropy().mean(),
        "spectrum": -values[:3].sum() / values.sum(),
    }
    for term, value in wanted.items():
        method.weights = NONE | {term: 1.0}
        torch.testing.assert_close(method.loss(batch) - task, value)


def test_the_logarithm_of_a_vanishing_probability_is_finite():
    """Where softmax underflows, as for confident logits of half a vocabulary, and a logarithm of it would not be."""
    logits, teacher = torch.tensor([[200.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 0.0]])
    assert not logits.softmax(-1).log().isfinite().all()
    loss = penalties.divergence(logits, teacher) + penalties.negative_entropy(logits)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_a_fit_ends_with_an_ordinary_model(bench, tmp_path):
    method, _ = finished(bench(*GENERATIVE), tmp_path, own=True)
    assert method.outcome["metrics"]["relative_change"] > 0
    assert all(parameter.isfinite().all() for parameter in method.model.parameters())
