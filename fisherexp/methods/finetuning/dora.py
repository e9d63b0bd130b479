"""DoRA: LoRA moves the direction of each row of a weight, and its length is trained apart.

    W' = m ∘ (W + α / r · B A) / ‖W + α / r · B A‖,   norms of rows; m = the norms of W's rows at the start

Paper: Liu et al., ICML 2024, arXiv 2402.09353; see fisherexp/adapters/dora.py. Norms count as constants in the
gradient, as in section 4.3 of the paper. Otherwise as lora.py.
"""

from fisherexp import adapters
from fisherexp.methods.finetuning.lora import LoRA


class DoRA(LoRA):
    """Options as for LoRA."""

    name = "dora"
    paper = "Liu et al., ICML 2024, arXiv 2402.09353"
    factors = adapters.DoRA
