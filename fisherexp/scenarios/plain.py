"""The data set as it comes: train on its training part, judge on its test part."""

from functools import partial

from fisherexp.data.datamodule import LabelledData
from fisherexp.metrics.calibration import CalibrationMetrics
from fisherexp.metrics.language import LanguageMetrics
from fisherexp.scenarios.setting import Setting, Store


class Plain:
    """No intervention."""

    name = "none"
    kind = "plain"
    reads = ("images", "tokens")
    references = {}

    def setting(self, data: LabelledData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train, test, and validation where the data put some aside (data.validation).

        Judged by test accuracy (%), negative log-likelihood (nats) and calibration; with a validation part also
        by the calibration at the temperature that suits that part best. Text is judged by what it takes to say the
        next token.
        """
        parts = {"train": data.train, "test": data.test}
        if data.holds == "tokens":
            parts |= {} if data.validation is None else {"validation": data.validation}
            judged = tuple(part for part in ("validation", "test") if part in parts)
            return Setting(data, parts, judged, partial(LanguageMetrics, judged), seed)
        if data.validation is None:
            return Setting(data, parts, ("test",), partial(CalibrationMetrics, ("test",)), seed)
        parts["validation"] = data.validation
        judged = ("validation", "test")
        return Setting(data, parts, judged, partial(CalibrationMetrics, judged, "validation"), seed)
