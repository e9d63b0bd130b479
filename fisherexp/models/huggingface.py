"""Pretrained transformers of text as backbones (Wolf et al. 2020, transformers)."""

import copy
import functools
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.content import content
from fisherexp.models.backbone import Backbone
from fisherexp.models.transformer_files import read, transformers, whereabouts


class HuggingFace(Backbone):
    """A transformer of the library transformers; one feature vector a text, pooled from its last hidden states.

    name: a folder, pkg://<distribution>/<folder> of an installed package, or a name of the hub. revision: commit or tag
        of the hub, which it needs. gguf_file: of the folder, where the weights are in this form.
    task: what it is for; classification by a head on the features.
    pooling: 'mean' over the tokens of a text, or 'cls': of its first token (of no use for a model that reads from left
        to right).
    pretrained: its weights, read once in a process; otherwise new ones, of its architecture.
    dtype: of the weights; features are float32. attn_implementation: as transformers names them.
    input_shape: (T,), tokens at most. vocabulary: number of tokens of the data's tokenizer.

    Raises ValueError, in one line, for what cannot be read, weights that are not all there, and for a tokenizer or
    texts that the model is not made for; ImportError without transformers.
    """

    requires = ("text",)
    paths = ("name",)
    named_by = "name"

    def __init__(
        self,
        name: str,
        task: Literal["classification"] = "classification",
        pooling: Literal["mean", "cls"] = "mean",
        pretrained: bool = True,
        revision: str | None = None,
        gguf_file: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        attn_implementation: Literal["sdpa", "eager"] = "sdpa",
        *,
        input_shape: tuple[int],
        vocabulary: int,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        place, options = whereabouts(name, revision, gguf_file)
        options |= {"dtype": getattr(torch, dtype), "attn_implementation": attn_implementation}
        self.network = _pretrained(name, place, options) if pretrained else _new(name, place, options)
        config = self.network.config
        self.num_features = config.hidden_size
        if vocabulary > (rows := self.network.get_input_embeddings().num_embeddings):
            raise ValueError(
                f"the tokenizer has {vocabulary} tokens, model.name={name} knows {rows}: it is that of another model "
                "(data.tokenizer.name)"
            )
        longest = getattr(config, "max_position_embeddings", None) or input_shape[0]
        if input_shape[0] > longest:
            raise ValueError(f"data.max_length={input_shape[0]}: model.name={name} takes {longest} tokens at most")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Features (B, d) of token ids (B, T), of which those with mask 1 (B, T) count."""
        states = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        if self.pooling == "cls":
            return states[:, 0]
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)


class MiniLM(HuggingFace):
    """all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; Reimers, Gurevych 2019, arXiv 1908.10084)."""

    named_by = None
    name = "minilm"


class SmolLM2(HuggingFace):
    """SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv 2502.02737), a decoder."""

    named_by = None
    name = "smollm2"


def _pretrained(name: str, place: str, options: dict[str, Any]) -> nn.Module:
    """A copy of its own of the pretrained network, in train mode like every new module."""
    known = content(Path(place)) if options.get("local_files_only") else None
    return copy.deepcopy(_loaded(name, place, tuple(sorted(options.items())), known)).train()


@functools.lru_cache(maxsize=1)
def _loaded(name: str, place: str, options: tuple[tuple[str, Any], ...], known: str | None) -> nn.Module:
    """known: hash of the files, so that others under the same name are read anew."""
    library = transformers()
    with torch.random.fork_rng(devices=[]):  # what is drawn next must not depend on whether the files are read
        model, report = read(library.AutoModel, "its weights", name, place, output_loading_info=True, **dict(options))
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"model.name={name}: its files hold no weights for {', '.join(missing[:3])}{more}")
    return _features_only(model)


def _new(name: str, place: str, options: dict[str, Any]) -> nn.Module:
    library = transformers()
    made = {key: options.pop(key) for key in ("dtype", "attn_implementation")}
    config = read(library.AutoConfig, "its config.json", name, place, **options)
    return _features_only(library.AutoModel.from_config(config, **made)).train()


def _features_only(model: nn.Module) -> nn.Module:
    """Without the layer that BERT and its kin have for another task: it would be a weight that nothing uses."""
    if "pooler" in dict(model.named_children()):
        model.pooler = None
    model.config.use_cache = False  # keys and values of a decoder, for writing
    return model
