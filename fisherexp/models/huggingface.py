"""Pretrained transformers of text as backbones (Wolf et al. 2020, transformers): of texts, or of their next tokens."""

import copy
import functools
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.content import content
from fisherexp.models.backbone import Backbone
from fisherexp.models.transformer_files import most_tokens, read, transformers, whereabouts

CLASSES = {"classification": "AutoModel", "causal_lm": "AutoModelForCausalLM"}  # task -> class of transformers
Parts = tuple[nn.Module, nn.Linear | None, int]  # network, head of its own, width of its states


class HuggingFace(Backbone):
    """A transformer of the library transformers; its features are its last hidden states: pooled, one vector a text, or
    as a language model one vector a token.

    name: a folder, pkg://<distribution>/<folder> of an installed package, or a name of the hub. revision: commit or tag
        of the hub, which it needs. gguf_file: of the folder, where the weights are in this form.
    task: 'classification' by a new head on the features, or 'causal_lm': the next token, by the head that came with the
        model, its weight tied to the token embedding where it was so.
    pooling: 'mean' over the tokens of a text, or 'cls': of its first token (of no use for a model that reads from left
        to right).
    pretrained: its weights, read once in a process; otherwise new ones, of its architecture.
    dtype: of the weights; features of a text are float32. attn_implementation: as transformers names them.
    gradient_checkpointing: in training keep what goes into a block only, and go through the block again on the way
        back: the same gradients for less memory and more time. Evaluating, as all that looks at single samples does,
        a model keeps nothing and does not.
    input_shape: (T,), tokens at most. vocabulary: number of tokens of the data's tokenizer.

    Raises ValueError, in one line, for what cannot be read, weights that are not all there, a model that needs more
    than a text, a language model that reads from both sides or computes more of its logits than a linear layer does,
    and for a tokenizer or texts that the model is not made for; ImportError without transformers.
    """

    requires = ("text",)
    requires_with = {"task": {"classification": ("class_labels",), "causal_lm": ("next_tokens",)}}
    paths = ("name",)
    named_by = "name"
    adapter_lr = 2e-4  # the default of methods whose adapters are published on language models

    def __init__(
        self,
        name: str,
        task: Literal["classification", "causal_lm"] = "classification",
        pooling: Literal["mean", "cls"] = "mean",
        pretrained: bool = True,
        revision: str | None = None,
        gguf_file: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        attn_implementation: Literal["sdpa", "eager"] = "sdpa",
        gradient_checkpointing: bool = False,
        *,
        input_shape: tuple[int],
        vocabulary: int,
    ) -> None:
        super().__init__()
        self.task, self.pooling = task, pooling
        self.came = name if pretrained else None  # what the weights are of
        place, options = whereabouts(name, revision, gguf_file)
        options |= {"dtype": getattr(torch, dtype), "attn_implementation": attn_implementation}
        self.network, head, self.num_features = (_pretrained if pretrained else _new)(name, task, place, options)
        self.own = (head,)  # in a tuple: a part of the classifier, not of this backbone
        if gradient_checkpointing:
            self.network.activation_checkpointing_enable({"use_reentrant": False})
        config = self.network.config
        if vocabulary > (rows := self.network.get_input_embeddings().num_embeddings):
            raise ValueError(
                f"the tokenizer has {vocabulary} tokens, model.name={name} knows {rows}: it is that of another model "
                "(data.tokenizer.name)"
            )
        self.context = most_tokens(config)
        if self.context and input_shape[0] > self.context:
            raise ValueError(f"data.max_length={input_shape[0]}: model.name={name} takes {self.context} tokens at most")

    def initialize(self, head: nn.Linear) -> None:
        """Make a head the language model's own, for as many tokens as that knows; other heads stay."""
        for own in self.own:
            if own is not None:
                head.weight, head.bias, head.out_features = own.weight, own.bias, own.out_features

    def origin(self) -> dict[str, Any]:
        head = "a new head" if self.own == (None,) else "with its head"
        return {"text": f"{self.came}, {head}"} if self.came else {}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Features (B, d) of token ids (B, T), of which those with mask 1 (B, T) count; (B, T, d) for next tokens."""
        states = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.task == "causal_lm":
            return states
        states = states.float()
        if self.pooling == "cls":
            return states[:, 0]
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)


class MiniLM(HuggingFace):
    """all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; Reimers, Gurevych 2019, arXiv 1908.10084)."""

    requires = ("text", "class_labels")  # it reads from both sides
    named_by = None
    name = "minilm"


class SmolLM2(HuggingFace):
    """SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv 2502.02737), a decoder."""

    named_by = None
    name = "smollm2"


def _pretrained(name: str, task: str, place: str, options: dict[str, Any]) -> Parts:
    """A copy of its own of the pretrained network, and of its head, in train mode like every new module."""
    known = content(Path(place)) if options.get("local_files_only") else None
    found = copy.deepcopy(_loaded(name, task, place, tuple(sorted(options.items())), known))  # as one: tied
    found[0].train()
    return found


@functools.lru_cache(maxsize=1)
def _loaded(name: str, task: str, place: str, options: tuple[tuple[str, Any], ...], known: str | None) -> Parts:
    """known: hash of the files, so that others under the same name are read anew."""
    with torch.random.fork_rng(devices=[]):  # what is drawn next must not depend on whether the files are read
        model, report = read(
            getattr(transformers(), CLASSES[task]),
            "its weights",
            name,
            place,
            output_loading_info=True,
            **dict(options),
        )
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"model.name={name}: its files hold no weights for {', '.join(missing[:3])}{more}")
    return _parts(name, task, model)


def _new(name: str, task: str, place: str, options: dict[str, Any]) -> Parts:
    library = transformers()
    made = {key: options.pop(key) for key in ("dtype", "attn_implementation")}
    config = read(library.AutoConfig, "its config.json", name, place, **options)
    found = _parts(name, task, getattr(library, CLASSES[task]).from_config(config, **made))
    found[0].train()
    return found


def _parts(name: str, task: str, model: nn.Module) -> Parts:
    """The network that makes the hidden states, the head of a language model, and how wide the states are."""
    model.config.use_cache = False  # keys and values of a decoder, for writing
    if task == "classification":
        return _features_only(model), None, _width(name, model.eval())
    network, head = model.base_model, model.get_output_embeddings()
    if reason := _unfit(model.eval(), network, head):
        raise ValueError(f"model.name={name} is no language model of the kind model.task=causal_lm: {reason}")
    return network, head, head.in_features


@torch.no_grad()
def _width(name: str, network: nn.Module) -> int:
    """Numbers in a hidden state, found by asking: OPT-350m's are fewer than its config's hidden_size. Raises ValueError
    for a network that makes none of tokens alone, as T5's decoder does not."""
    try:
        return network(input_ids=torch.arange(4)[None]).last_hidden_state.shape[-1]
    except (ValueError, TypeError, AttributeError) as error:
        decodes = network.config.to_dict().get("is_encoder_decoder")  # T5's own words say nothing of it
        reason = "its decoder wants another" if decodes else str(error).partition("\n")[0]
        raise ValueError(f"model.name={name} makes no hidden states of a text alone: {reason}") from None


@torch.no_grad()
def _unfit(model: nn.Module, network: nn.Module, head: nn.Module | None) -> str | None:
    """Why a model's logits are not those of a head on states that know nothing of later tokens; None where they are.
    Found by asking it: some scale or cap their logits, and what reads from both sides can be loaded as well."""
    tokens = torch.arange(4)[None] % network.get_input_embeddings().num_embeddings
    states = network(input_ids=tokens).last_hidden_state
    rounding = (
        1e-5 if states.dtype == torch.float32 else 0.05
    )  # new weights hardly mix tokens: a looser one lets them by

    def close(found: Tensor, expected: Tensor) -> bool:
        return bool((found - expected).abs().max() <= rounding * expected.abs().max())

    # Later tokens are changed and not left out: at another length some processors round otherwise.
    later = torch.where(torch.arange(4) < 2, tokens, (tokens + 1) % network.get_input_embeddings().num_embeddings)
    if not close(network(input_ids=later).last_hidden_state[:, :2], states[:, :2]):
        return "it reads from both sides"
    if not isinstance(head, nn.Linear) or not close(head(states), model(input_ids=tokens).logits):
        return "its logits are more than a linear layer on its last hidden states"
    return None


def _features_only(model: nn.Module) -> nn.Module:
    """Without the layer that BERT and its kin have for another task: it would be a weight that nothing uses."""
    if "pooler" in dict(model.named_children()):
        model.pooler = None
    return model
