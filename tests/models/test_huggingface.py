"""A pretrained transformer as backbone, against transformers' own calls on a tiny random BERT; what does not fit."""

import shutil

import pytest
import torch
from tiny_bert import CONTEXT, WORDS, save_tiny_bert

from fisherexp.models.huggingface import HuggingFace
from fisherexp.models.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = ["good film", "the plot is very very dull"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


def made(folder: str, **options) -> HuggingFace:
    options = {"input_shape": (CONTEXT,), "vocabulary": 20} | options
    return HuggingFace(folder, **options).eval()


def encoded(folder: str) -> dict[str, torch.Tensor]:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_features_are_those_of_transformers(folder, attention):
    from transformers import AutoModel

    inputs = encoded(folder)
    states = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
    lengths = inputs["attention_mask"].sum(1)
    wanted = torch.stack([row[:length].mean(0) for row, length in zip(states, lengths, strict=True)])
    torch.testing.assert_close(made(folder, attn_implementation=attention)(**inputs), wanted)
    torch.testing.assert_close(made(folder, pooling="cls")(**inputs), states[:, 0])


def test_padding_does_not_count(folder):
    inputs, model = encoded(folder), made(folder)
    wider = {name: torch.nn.functional.pad(tensor, (0, 5)) for name, tensor in inputs.items()}
    torch.testing.assert_close(model(**wider), model(**inputs))
    changed = wider | {"attention_mask": torch.ones_like(wider["attention_mask"])}
    assert not torch.allclose(model(**changed), model(**inputs))


def test_weights_are_read_once_and_given_out_as_copies(folder):
    state = torch.get_rng_state()
    one, other = made(folder), made(folder)
    assert torch.equal(torch.get_rng_state(), state)
    one.network.embeddings.word_embeddings.weight.data.zero_()
    assert other.network.embeddings.word_embeddings.weight.any()
    assert all(parameter.requires_grad for parameter in one.parameters())
    assert not any("pooler" in name for name, _ in one.named_parameters())
    assert HuggingFace(folder, input_shape=(4,), vocabulary=20).network.training
    new = made(folder, pretrained=False).network.embeddings.word_embeddings.weight
    assert not torch.equal(new, other.network.embeddings.word_embeddings.weight)


def test_other_weights_under_the_same_name_are_read_anew(folder, tmp_path):
    from fisherexp.content import look_again

    shutil.copytree(folder, tmp_path / "it")
    before = made(str(tmp_path / "it")).network.embeddings.word_embeddings.weight
    save_tiny_bert(tmp_path / "it", [*WORDS, "more"])
    look_again()
    assert made(str(tmp_path / "it")).network.embeddings.word_embeddings.weight.shape != before.shape


def test_half_precision_gives_features_in_float32(folder):
    model = made(folder, dtype="bfloat16")
    assert model.network.dtype == torch.bfloat16
    assert model(**encoded(folder)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vocabulary": 21}, "the tokenizer has 21 tokens, .* knows 20: it is that of another model"),
        ({"input_shape": (17,)}, "data.max_length=17: .* takes 16 tokens at most"),
        ({"gguf_file": "it.gguf"}, "has no such file; of this kind it has: none"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(folder, options, said):
    with pytest.raises(ValueError, match=said) as error:
        made(folder, **options)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_all_there(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "part")
    file = tmp_path / "part" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if "layer.1" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"its files hold no weights for encoder\.layer\.1.* and 13 more"):
        made(str(tmp_path / "part"))
    file.unlink()
    with pytest.raises(ValueError, match="its weights cannot be read: "):
        made(str(tmp_path / "part"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pkg://no-such-package/folder", "this is not installed: pip install no-such-package"),
        ("owner/model", "the version must be named: model.revision=<commit>, from https://huggingface.co/owner/model"),
    ],
)
def test_names_that_stand_for_nothing_here(name, said):
    for make in (lambda: made(name), lambda: Tokenizer(name).vocabulary):
        with pytest.raises(ValueError, match=said):
            make()


def test_the_tokenizer_cuts_and_counts(folder):
    tokenizer = Tokenizer(folder)
    assert (tokenizer.vocabulary, tokenizer.context, tokenizer.padding) == (20, CONTEXT, 0)
    rows, cut = tokenizer.rows(TEXTS, 5)
    assert [len(row) for row in rows] == [4, 5]
    assert cut == 1
    assert rows[1][-1] == rows[0][-1]  # the mark at the end stays
    assert tokenizer.rows(TEXTS, 8)[1] == 0  # as long as the longest: nothing is cut
    assert [len(row) for row in tokenizer.rows(TEXTS, 3)[0]] == [3, 3]
    for length in (1, 2):
        with pytest.raises(ValueError, match=f"max_length={length}: the marks .* around a text are 2 tokens"):
            tokenizer.rows(TEXTS, length)


def unbounded(folder: str, target, config) -> str:
    """A new model of this config beside the tokenizer, which does not say how long a text may be."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=None)
    tokenizer.save_pretrained(target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModel.from_config(config).save_pretrained(target)
    return str(target)


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(("kind", "most"), [("RobertaConfig", 13), ("BertConfig", 16)])
def test_places_before_the_first_token_are_none_for_texts(folder, tmp_path, kind, most):
    """RoBERTa counts on from its filling token's number, here 2: of 16 places 13 are left."""
    config = getattr(transformers, kind)(vocab_size=20, max_position_embeddings=16, pad_token_id=2, **SIZES)
    place = unbounded(folder, tmp_path / "it", config)
    model = made(place, input_shape=(most,))
    assert Tokenizer(place).context == model.context == most
    inputs = {name: torch.ones(1, most, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    assert model(**inputs).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):  # the control
        model(**{name: torch.nn.functional.pad(tensor, (0, 1), value=1) for name, tensor in inputs.items()})
    with pytest.raises(ValueError, match=f"takes {most} tokens at most"):
        made(place, input_shape=(most + 1,))


def test_where_nothing_bounds_a_text_none_is_cut(folder, tmp_path):
    config = transformers.XLNetConfig(vocab_size=20, d_model=16, n_layer=1, n_head=2, d_inner=16)
    tokenizer = Tokenizer(unbounded(folder, tmp_path / "it", config))
    rows, cut = tokenizer.rows(["good film " * 300], tokenizer.context)
    assert (len(rows[0]), cut) == (602, 0)


def test_features_are_as_wide_as_the_states(folder, tmp_path):
    """OPT-350m has states of 512 numbers within layers of 1,024."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
    config = transformers.OPTConfig(vocab_size=20, word_embed_proj_dim=8, do_layer_norm_before=False, **sizes)
    model = made(unbounded(folder, tmp_path / "it", config))
    assert model(**encoded(folder)).shape == (2, model.num_features) == (2, 8)


def test_a_decoder_that_wants_texts_of_its_own_is_refused_before_training(folder, tmp_path):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    place = unbounded(folder, tmp_path / "it", transformers.T5Config(vocab_size=20, **sizes))
    with pytest.raises(ValueError, match=r"makes no hidden states of a text alone: its decoder wants another$"):
        made(place)


def test_the_checksum_of_a_tokenizer_is_that_of_its_content(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    other = save_tiny_bert(tmp_path / "other", ["other", *WORDS[1:]])
    checksums = [Tokenizer(str(place)).checksum for place in (folder, tmp_path / "copy", other)]
    assert checksums[0] == checksums[1] != checksums[2]


def test_the_checksum_tells_on_which_side_texts_are_cut(folder, tmp_path):
    left = transformers.AutoTokenizer.from_pretrained(folder, truncation_side="left")
    left.save_pretrained(tmp_path / "left")
    one, other = Tokenizer(folder), Tokenizer(str(tmp_path / "left"))
    assert one.rows(TEXTS, 5) != other.rows(TEXTS, 5)
    assert one.checksum != other.checksum


@pytest.mark.parametrize(
    ("marks", "begin"),
    [
        ("$A", []),
        ("[CLS] $A", [2]),
        ("$A [SEP]", []),
        ("[CLS] $A [SEP]", [2]),
        ("[SEP] $A", [3]),
        ("[SEP] $A [SEP]", [3]),
    ],
)
def test_what_a_text_begins_with_may_be_what_ends_one(folder, tmp_path, marks, begin):
    """As OPT's do, whose one mark is for both."""
    from tokenizers.processors import TemplateProcessing

    found = transformers.AutoTokenizer.from_pretrained(folder, eos_token="[SEP]")
    numbers = [("[CLS]", 2), ("[SEP]", 3)]
    found.backend_tokenizer.post_processor = TemplateProcessing(single=marks, special_tokens=numbers)
    found.save_pretrained(tmp_path / "it")
    assert Tokenizer(str(tmp_path / "it")).begin == begin
