"""Friedman's regression problems as data sets: outcomes are known without their noise, test points as far as wished."""

from typing import Any, Literal

import torch

from fisherexp.config.types import Count, NonNegative
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.mars import mars_add, mars_mult, noisy, offset_inputs, uniform_inputs
from fisherexp.data.tensors import TensorSet
from fisherexp.objectives.regression import Regression
from fisherexp.seeds import generator

FUNCTIONS = {"add": mars_add, "mult": mars_mult}


class Friedman(LabeledData):
    """n training points with noise, test_n test points without, drawn from `seed`.

    function: 'add' or 'mult', see mars.py. sigma: standard deviation of the noise. offset: None for fresh test points;
    otherwise each is a training point moved by at most that much in every coordinate, and 0 gives training points back.
    Further options: see LabeledData. Targets are float32 (N, 1), in the function's own units.
    """

    title = "Friedman"
    provides = ("floats",)
    problems = ("supervised",)
    paths = ()
    objective = Regression()
    input_shape = (5,)
    input_dtype = torch.float32

    def __init__(
        self,
        function: Literal["add", "mult"] = "add",
        n: Count = 500,
        test_n: Count = 500,
        sigma: NonNegative = 1.0,
        offset: NonNegative | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.function, self.n, self.test_n = function, n, test_n
        self.sigma, self.offset = sigma, offset

    @property
    def num_outputs(self) -> int:
        return 1

    def read(self) -> tuple[TensorSet, TensorSet]:
        outcome, draws = FUNCTIONS[self.function], generator("friedman", self.seed)
        train = uniform_inputs(self.n, draws)
        outcomes = noisy(outcome(train), self.sigma, draws)
        if self.offset is None:
            test = uniform_inputs(self.test_n, draws)
        else:
            near = torch.randint(self.n, (self.test_n,), generator=draws)
            test = offset_inputs(train[near], self.offset, draws)
        pairs = ((train, outcomes), (test, outcome(test)))
        return tuple(TensorSet(inputs.float(), targets.float()[:, None]) for inputs, targets in pairs)
