"""Fisher information and Hessians of any torch module: exact per sample, at about the price of one backward pass.

Pure torch; importing this package imports no experiment framework.
"""

from fisherexp.curvature.accumulating import LARGEST, Accumulator, accumulate
from fisherexp.curvature.accumulator import DiagonalAccumulator, fisher_diagonal
from fisherexp.curvature.diagonal import Estimator, FisherDiagonal
from fisherexp.curvature.kfac import KFAC, KFACAccumulator, kfac
from fisherexp.curvature.likelihood import Likelihood
from fisherexp.curvature.matrix import CurvatureMatrix, LinearMap
from fisherexp.curvature.per_sample import gradient_second_moments, per_sample_gradient_norms
from fisherexp.curvature.rules import Use, register_rule

# --- Hessians, products, low rank and spectra: add imports below this line -----------------------------------------
# isort: split
from fisherexp.curvature.gradient_rows import LowRankAccumulator
from fisherexp.curvature.head_gradients import (
    head_gradient_gram,
    head_gradient_mean,
    head_gradient_norms,
    head_gradient_second_moment,
    head_gradient_variance,
    head_residuals,
    per_sample_head_gradients,
)
from fisherexp.curvature.head_hessian import (
    alignment_penalty,
    frobenius_distance,
    frobenius_gram,
    frobenius_inner,
    head_hessian_diagonal,
    head_hessian_product,
    spectral_distance,
)
from fisherexp.curvature.hutchinson import (
    DiagonalEstimate,
    hutchinson_diagonal,
    hutchinson_hessian_diagonal,
    rademacher,
)
from fisherexp.curvature.lanczos import Eigenpairs, extreme_eigenpairs
from fisherexp.curvature.low_rank import LowRankFisher, batch_gradients
from fisherexp.curvature.products import (
    CurvatureOperator,
    ggn_operator,
    ggn_product,
    hessian_operator,
    hessian_product,
)
from fisherexp.curvature.sample_gradients import PerSampleGradients, SampleGradients

# --- end of that block ---------------------------------------------------------------------------------------------
