"""PiSSA: LoRA that begins with the leading singular components of the weight, which are taken out of what is frozen.

    W' = (W - B_0 A_0) + B A,   B, A = B_0, A_0 = U_r √S_r, √S_r V_rᵀ at the start

Paper: Meng, Wang, Zhang, NeurIPS 2024, arXiv 2404.02948; see fisherexp/adapters/pissa.py, also for α ≠ r. The authors
store W - B_0 A_0 in the place of W; here W stays, so that the adapter fits the source's weights. Exact decomposition.
"""

from fisherexp import adapters
from fisherexp.methods.finetuning.lora import LoRA


class PiSSA(LoRA):
    """Options as for LoRA; published: alpha = rank."""

    name = "pissa"
    paper = "Meng et al., NeurIPS 2024, arXiv 2404.02948"
    factors = adapters.PiSSA
