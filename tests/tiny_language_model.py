"""Language models of two layers and their tokenizer of words, saved to a folder as pretrained models are."""

from pathlib import Path

import torch

WORDS = ["the", "cat", "dog", "sees", "hears", "a", "bird", "and", "runs", "sleeps", "."]
MARKS = ["<pad>", "<unk>", "<end>", "<user>", "<model>"]
CONTEXT = 32
TEMPLATE = (
    "{% for m in messages %}{{ ('<user> ' if m['role'] == 'user' else '<model> ') + m['content'] + ' <end> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<model> ' }}{% endif %}"
)


def save_tiny_tokenizer(folder: Path, template: str | None = None, end: bool = True) -> int:
    """Into the folder; the number of its tokens."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*MARKS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    named = {"pad_token": "<pad>", "unk_token": "<unk>"} | ({"eos_token": "<end>"} if end else {})
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **named)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(vocabulary)


def save_tiny_language_model(folder: Path, kind: str = "llama", template: str | None = None, **changes) -> str:
    """The folder's name. kind: 'llama' (projections apart) or 'gpt2' (query, key and value fused in a Conv1D), or a
    config's class by its name."""
    import transformers

    common = {"vocab_size": save_tiny_tokenizer(folder, template), "eos_token_id": 2, "pad_token_id": 0}
    common |= {"bos_token_id": None, "tie_word_embeddings": True}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=CONTEXT, **common | changes)
    else:
        name = "LlamaConfig" if kind == "llama" else kind
        options = {"max_position_embeddings": CONTEXT, **common, **sizes, **changes}
        config = getattr(transformers, name)(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def write_story(file: Path, sentences: int, last: str = ".") -> str:
    """A text of sentences that say who sees or hears whom; its name."""
    kinds = [("cat", "sees"), ("dog", "hears")]
    told = [f"the {who} {does} a bird {last}" for who, does in (kinds[number % 2] for number in range(sentences))]
    file.write_text("\n".join(told) + "\n", encoding="utf-8")
    return str(file)
