"""Special functions that torch and SciPy lack, vectorized in torch and differentiable; torch alone."""

from fisherexp.special.log_bessel import iv_ratio, iv_ratio_gap, kv_ratio, log_iv, log_ive, log_kv, log_kve

__all__ = ["iv_ratio", "iv_ratio_gap", "kv_ratio", "log_iv", "log_ive", "log_kv", "log_kve"]
