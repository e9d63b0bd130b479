"""A BERT of two layers and its tokenizer of words, saved to a folder as pretrained models are."""

from pathlib import Path

import torch

WORDS = ["good", "fine", "nice", "bad", "dull", "poor", "film", "actor", "plot", "the", "a", "very", "so", "it", "is"]
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONTEXT = 16


def save_tiny_bert(folder: Path, words: list[str] = WORDS) -> str:
    """The folder's name."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*MARKS, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **named)
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=CONTEXT, **sizes)
        BertModel(config).save_pretrained(folder)
    return str(folder)


def write_reviews(file: Path, count: int) -> str:
    """A file of texts that say good or bad of something; its name."""
    rows = []
    for number in range(count):
        word = WORDS[number % 6]
        rows.append(f"the {WORDS[6 + number % 3]} is {' '.join(['very'] * (number % 4))} {word}\t{int(number % 6 < 3)}")
    file.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return str(file)
