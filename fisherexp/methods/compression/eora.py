"""EoRA: low-rank factors for what any compression of a layer loses, in the eigenspace of its inputs.

    R = E[x xᵀ] = E Λ Eᵀ,   (W - Ŵ) E √Λ = U Σ Vᵀ,   B A = U_r Σ_r V_rᵀ (E √Λ)⁻¹

Paper: Liu et al. 2024, arXiv 2410.21271. The optimum is QERA's; what differs is the compressor, and that blocks are
compensated in order. Written from the formulas, not from NVIDIA's code, which is non-commercial. Where that code
differs: it sums R with a decay, takes the inverse of eigenvalues however small, and collects on the text of the task it
is judged on. Not here: factors rounded to four bits, an option there, and its baseline of factors learned by descent.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.methods.compression.gptq import gptq, integer
from fisherexp.methods.compression.rounded import Corrected
from fisherexp.methods.compression.sparsegpt import sparsegpt
from fisherexp.methods.compression.wanda import wanda_scores
from fisherexp.quantization import Format, LayerStats, Root, StoredWeight, TwoFour, psd_root, two_of_four


class EoRA(Corrected):
    """compressor: what is compensated. rtn, gptq: rounded; two_four (by magnitude), wanda, sparsegpt: 2:4-pruned. With
    quantize_kept the weights that pruning keeps are rounded to nearest as well.
    damping: of gptq and sparsegpt. sequential: see WeightTransform. The rest as in Corrected.
    """

    name = "eora"
    paper = "Liu et al., 2024, arXiv 2410.21271"
    counts_with = {
        "damping": {"compressor": "gptq"},
        "quantize_kept": {"compressor": "wanda"},
    }

    def __init__(
        self,
        model: nn.Module,
        compressor: Literal["rtn", "gptq", "two_four", "wanda", "sparsegpt"],
        quantize_kept: bool,
        damping: Positive,
        sequential: bool,
        **options: Any,
    ) -> None:
        super().__init__(model, sequential=sequential, **options)
        if compressor == "gptq":
            integer(self.form)
        self.compressor, self.quantize_kept, self.damping = compressor, quantize_kept, damping

    @property
    def weight_bits(self) -> int:
        return self.bits if self.compressor in ("rtn", "gptq") or self.quantize_kept else 16

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        return psd_root(stats.second_moment, symmetric=False), None

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        return self.corrected(name, weight, stats, *self.compressed(weight, stats))

    def compressed(self, weight: Tensor, stats: LayerStats) -> tuple[Format, dict[str, Tensor]]:
        """Ŵ without the factors: its format and what is stored of it."""
        if self.compressor == "rtn":
            return self.form, self.form.encode(weight)
        if self.compressor == "gptq":
            return self.form, gptq(weight, stats.second_moment, self.form, self.damping)
        if self.compressor == "sparsegpt":
            pruned = sparsegpt(weight, stats.second_moment, damping=self.damping)
        else:
            scores = weight.abs() if self.compressor == "two_four" else wanda_scores(weight, stats.mean_square)
            pruned = weight * two_of_four(scores)
        form = TwoFour(self.form) if self.quantize_kept else TwoFour()
        return form, form.encode(pruned)
