"""The data set as it comes: train on its training part, evaluate on its test part."""

from functools import partial

from fisherexp.data.datamodule import LabeledData
from fisherexp.metrics.calibration import CalibrationMetrics
from fisherexp.metrics.language import LanguageMetrics
from fisherexp.scenarios.setting import Setting, Store


class Plain:
    """No intervention."""

    name = "none"
    kind = "plain"
    reads = ("images", "tokens")
    references = {}

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train, test, and validation where the data put some aside (data.validation).

        Evaluated by test accuracy (%), negative log-likelihood (nats) and calibration; with a validation part also
        by the calibration at the temperature that suits that part best. Text is evaluated by what it takes to say the
        next token.
        """
        parts = {"train": data.train, "test": data.test}
        if data.holds == "tokens":
            parts |= {} if data.validation is None else {"validation": data.validation}
            evaluated = tuple(part for part in ("validation", "test") if part in parts)
            return Setting(data, parts, evaluated, partial(LanguageMetrics, evaluated), seed)
        if data.validation is None:
            return Setting(data, parts, ("test",), partial(CalibrationMetrics, ("test",)), seed)
        parts["validation"] = data.validation
        evaluated = ("validation", "test")
        return Setting(data, parts, evaluated, partial(CalibrationMetrics, evaluated, "validation"), seed)
