"""The data set as it comes: train on its training part, evaluate on its test part."""

from functools import partial

from fisherexp.data.datamodule import LabeledData
from fisherexp.scenarios.setting import Setting, Store


class Plain:
    """No intervention."""

    name = "none"
    kind = "plain"
    reads = ("images", "tokens")
    references = {}

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts: train, test, and validation where the data put some aside (data.validation).

        Evaluated as the objective of the data says: classes by accuracy (%), likelihood (nats) and calibration, with a
        validation part also by the calibration at the temperature that suits that part best; text by what it takes to
        say the next token; numbers by their errors.
        """
        parts = {"train": data.train, "test": data.test}
        if data.validation is None:
            return Setting(data, parts, ("test",), partial(data.objective.metrics, ("test",)), seed)
        parts["validation"] = data.validation
        evaluated = ("validation", "test")
        return Setting(data, parts, evaluated, partial(data.objective.metrics, evaluated, "validation"), seed)
