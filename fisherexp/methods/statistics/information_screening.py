"""Columns ranked by their mutual information with an outcome, or by their correlation.

Kai Yang: Contributions to Robust and Efficient Methods for Analysis of High Dimensional Data, McGill, 2025, and its
package fastHDMI; the estimate: mutual_information.py. Correlations see what is linear only.
"""

import csv
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.methods.statistics.mutual_information import binned_information, mutual_information
from fisherexp.problems.sparse_regression import Columns, Regression, standardized

COLUMNS = 20  # of a step


class InformationScreening(IterativeMethod):
    """A step scores `COLUMNS` columns.

    score: mutual_information of a kernel density, binned_information of a histogram, or correlation. points: of the
    density's grid in each direction. keep: how many columns are kept, at most.
    ranking.csv has all columns, the best first; scores.png and .pdf show both scores.
    """

    name = "information_screening"
    paper = "Yang, McGill 2025 (fastHDMI)"
    problems = ("numerical",)
    requires = ("columns",)
    named_by = "score"

    problem: Regression

    def __init__(
        self,
        score: Literal["mutual_information", "binned_information", "correlation"] = "mutual_information",
        points: Count = 100,
        keep: Count = 20,
    ) -> None:
        super().__init__()
        self.score, self.points, self.keep = score, points, keep

    def begin(self, problem: Regression, seed: int) -> None:
        super().begin(problem, seed)
        if self.points < 2:
            raise ValueError(f"method.points={self.points}: 2 or more are expected")
        self.inputs = standardized(problem.instance["inputs"])[0]
        self.outcome_column = standardized(problem.instance["outcomes"][:, None])[0][:, 0]
        announce("kernels on the grid", self.points, len(self.inputs), copies=3, advice="lower method.points")
        self.correlations = self.inputs.T @ self.outcome_column / len(self.inputs)
        self.scores: list[float] = []

    @property
    def done(self) -> bool:
        return len(self.scores) == self.inputs.shape[1]

    def step(self) -> dict[str, float]:
        for column in self.inputs.T[len(self.scores) : len(self.scores) + COLUMNS]:
            if self.score == "correlation":
                self.scores.append(float((column @ self.outcome_column).abs() / len(column)))
            elif self.score == "binned_information":
                self.scores.append(binned_information(column, self.outcome_column))
            else:
                self.scores.append(mutual_information(column, self.outcome_column, self.points))
        return {"scored": len(self.scores)}

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores = state["scores"]

    def solution(self) -> Columns:
        scores = torch.tensor(self.scores, dtype=torch.float64)
        kept = scores.topk(min(self.keep, len(scores))).indices
        return Columns(torch.zeros_like(scores).index_copy(0, kept, scores[kept]))

    def tensors(self) -> dict[str, Tensor]:
        return {"scores": torch.tensor(self.scores, dtype=torch.float64)}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.column_figure import draw_scores

        scores = torch.tensor(self.scores, dtype=torch.float64)
        names = self.problem.names or [str(place) for place in range(len(scores))]
        with (folder / "ranking.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["column", self.score, "correlation"])
            for place in scores.argsort(descending=True).tolist():
                writer.writerow([names[place], self.scores[place], float(self.correlations[place])])
        draw_scores(scores, self.correlations, self.problem.instance.get("coefficients"), folder / "scores")
