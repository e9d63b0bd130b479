"""rsLoRA: LoRA whose scale keeps the size of the update as the rank grows.

    W' = W + α / √r · B A

Paper: Kalajdzievski 2023, arXiv 2312.03732; see fisherexp/adapters/lora.py. Otherwise as lora.py.
"""

from functools import partial

from fisherexp import adapters
from fisherexp.methods.finetuning.lora import LoRA


class RSLoRA(LoRA):
    """Options as for LoRA."""

    name = "rslora"
    paper = "Kalajdzievski 2023, arXiv 2312.03732"
    factors = partial(adapters.LoRA, rank_stabilized=True)
