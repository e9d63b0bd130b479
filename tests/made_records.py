"""Hand-made run records, as small as reports let them be."""

from typing import Any

HEADINGS = {"retain_accuracy": "retain\nacc. %", "forget_accuracy": "forget\nacc. %", "seconds": "seconds"}


def record(method: str, seed: int, retain: float, alpha: float = 0.7, **names: str) -> dict[str, Any]:
    """A finished run of `method`; `names` replaces data, model or scenario."""
    names = {"method": method, "data": "digits", "model": "small_cnn", "scenario": "class_forgetting"} | names
    semantic = {
        "method": {"_target_": method, "alpha": alpha},
        "data": {"_target_": names["data"]},
        "scenario": {"_target_": names["scenario"], "classes": [3]},
        "seed": seed,
    }
    after = {"retain_accuracy": retain, "forget_accuracy": 100 - retain, "seconds": 1.0 + seed}
    return {
        "identity": f"{method}{seed}{alpha}",
        "names": names,
        "semantic": semantic,
        "config": semantic,
        "seed": seed,
        "headings": HEADINGS,
        "better": {"retain_accuracy": "higher", "seconds": "lower"},
        "published": {},
        "trial": False,
        "metrics": {"after": after},
        "outcome": {},
        "costs": {},
        "memory": {"memory_mib": 100.0},
        "seconds": 1.0 + seed,
        "finished": "2026-01-01T00:00:00+0000",
        "command": f"python run.py method={method} seed={seed}",
        "code": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"torch": "2"},
        "hardware": {"cores": 2, "gpu": None},
        "folder": f"outputs/{method}/digits/{method}{seed}{alpha}",
    }
