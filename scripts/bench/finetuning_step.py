"""A training step of this project's adapters over one of peft's plain LoRA, and over peft's own of the same method.

    OMP_NUM_THREADS=1 python scripts/bench/finetuning_step.py [--model smollm2]

New weights of MiniLM's architecture (or SmolLM2's), adapters of rank 8 on every linear layer, AdamW; forward pass,
backward pass and step of one batch of random tokens. Both sides in one process, in alternation; a ratio is the median
over rounds of the process's time on its threads, which other programs disturb little. Memory is the growth of the
resident peak over model, adapters and steps, as Linux counts it. Exits with 1 where a step takes over a tenth longer
than peft's of the same method. Needs peft, which brings transformers.
"""

import argparse
import copy
import ctypes
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from fisherexp import adapters
from fisherexp.adapters import (
    LIFT,
    SALT,
    SORSA,
    AdaLoRA,
    Bone,
    DoRA,
    LoRA,
    MagnitudeMask,
    MiSS,
    PiSSA,
    RandomMask,
    SaRA,
    SoKA,
    SoMA,
    SVFit,
)

RANK, GOAL = 8, 1.1
OURS = {
    "lora": partial(LoRA, rank=RANK, alpha=RANK),
    "dora": partial(DoRA, rank=RANK, alpha=RANK),
    "pissa": partial(PiSSA, rank=RANK, alpha=RANK),
    "adalora": partial(AdaLoRA, rank=RANK, target=RANK // 2, alpha=RANK),
    "miss": partial(MiSS, rank=RANK),
    "bat": partial(Bone, rank=RANK),
    "random_mask": partial(RandomMask, rank=RANK),
    "soma": partial(SoMA, rank=RANK, alpha=RANK),
    "sorsa": partial(SORSA, rank=RANK, alpha=RANK),
    "svfit": partial(SVFit, rank=RANK),
    "salt": partial(SALT, rank=RANK),
    "soka": partial(SoKA, terms=RANK),
    "magnitude_mask": partial(MagnitudeMask, rank=RANK),
    "lift": partial(LIFT, rank=RANK, every=None),
    "sara": partial(SaRA, threshold=1e-3),
}
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}


def theirs(method: str, layers: list[str]) -> object | None:
    """peft's config of a method on those layers; None where it has none."""
    import peft

    given = {"r": RANK, "target_modules": "|".join(map(re.escape, layers))}
    kinds = {
        "lora": lambda: peft.LoraConfig(lora_alpha=RANK, **given),
        "dora": lambda: peft.LoraConfig(lora_alpha=RANK, use_dora=True, **given),
        "pissa": lambda: peft.LoraConfig(lora_alpha=RANK, init_lora_weights="pissa", **given),
        "miss": lambda: peft.MissConfig(**given),
        "bat": lambda: peft.MissConfig(init_weights="bat", **given),
        "random_mask": lambda: peft.ShiraConfig(**given),
        "adalora": lambda: peft.AdaLoraConfig(
            init_r=RANK, target_r=RANK // 2, lora_alpha=RANK, total_step=100, target_modules=given["target_modules"]
        ),
    }
    return kinds[method]() if method in kinds else None


def network(name: str) -> tuple[nn.Module, int]:
    """New weights of an architecture, and how many tokens it knows."""
    import transformers

    torch.manual_seed(0)
    if name == "minilm":
        config = transformers.BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
        return transformers.BertModel(config, add_pooling_layer=False), config.vocab_size
    config = transformers.LlamaConfig(vocab_size=49152, num_key_value_heads=3, tie_word_embeddings=True, **SMOLLM2)
    return transformers.LlamaModel(config), config.vocab_size


def step_of(
    model: nn.Module, tokens: torch.Tensor, penalty: Callable[[nn.Module], torch.Tensor]
) -> Callable[[], float]:
    """A function that trains one step and returns its seconds."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> float:
        begun = time.process_time()
        optimizer.zero_grad()
        states = model(input_ids=tokens).last_hidden_state
        (states.square().mean() + penalty(model)).backward()
        optimizer.step()
        return time.process_time() - begun

    return step


def grown(make: Callable[[], Callable[[], float]]) -> tuple[Callable[[], float], float]:
    """A step that `make` returns, and by how many MiB the resident peak grows while it is made and taken twice."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    before = peak()
    step = make()
    step(), step()
    return step, peak() - before


def peak() -> float:
    """MiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["minilm", "smollm2"], default="minilm")
    parser.add_argument("--methods", nargs="+", choices=[*OURS], default=[*OURS])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    try:
        import peft
    except ImportError:
        print("finetuning_step compares with peft, which is not installed: pip install 'fisherexp[peft]'")
        return 0
    base, vocabulary = network(options.model)
    tokens = torch.randint(vocabulary, (options.batch, options.length))
    layers = adapters.layer_names(base, "linear")

    def own(method: str) -> Callable[[], float]:
        model = copy.deepcopy(base)
        adapters.inject(model, layers, OURS[method])
        return step_of(model, tokens, adapters.penalty)

    def other(config: object) -> Callable[[], float]:
        model = peft.get_peft_model(copy.deepcopy(base), config)
        return step_of(model.get_base_model(), tokens, lambda model: torch.zeros(()))

    plain, memory = grown(lambda: other(theirs("lora", layers)))
    print(f"{options.model}, {len(layers)} layers, {tokens.numel()} tokens, {torch.get_num_threads()} threads")
    print(f"peft's LoRA: {1e3 * statistics.median(plain() for _ in range(options.rounds)):.0f} ms, {memory:.0f} MiB")
    print(f"{'':16}{'over LoRA of peft':>20}{'over its own':>14}{'MiB':>8}{'of peft':>9}")
    slow = []
    for method in options.methods:
        ours, memory = grown(partial(own, method))
        config = theirs(method, layers)
        same, theirs_memory = grown(partial(other, config)) if config else (None, float("nan"))
        rounds = [(ours(), plain(), same() if same else float("nan")) for _ in range(options.rounds)]
        over_lora = statistics.median(a / b for a, b, _ in rounds)
        over_same = statistics.median(a / c for a, _, c in rounds)
        last = f"{over_same:14.2f}{memory:8.0f}{theirs_memory:9.0f}" if same else f"{'':14}{memory:8.0f}"
        print(f"{method:16}{over_lora:20.2f}{last}", flush=True)
        slow += [method] if same and over_same > GOAL else []
        del ours, same
    if slow:
        print(f"over {GOAL} times peft's own: {', '.join(slow)}")
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
