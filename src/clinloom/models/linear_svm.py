"""A linear support vector machine: the widest margin between the classes (pyspark.ml).

It has no probabilities: its margin stands as log-odds, which recalibration on the rows that the
folds left out makes right as numbers, exactly as Platt (1999) proposed it. Without recalibration
(``calibration: none``) its risks only rank.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from clinloom.learn.algorithm import EXACT
from clinloom.models import _linear
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Linear support vector machine"
WEIGHTS = True
MISSING = False
CONNECT = True
TOLERANCE = EXACT
MARGIN: float | None = 0.5  # Spark tells the margin of either class: its negative and itself
QUICK: dict[str, Any] = {"penalty": (0.01,), "iterations": 10}

flatten = _linear.flatten
probability = _linear.probability
importance = _linear.importance
additive = _linear.additive


class Options(Model):
    """The grid of penalties."""

    penalty: tuple[float, ...] = Field(
        default=(0.01, 0.1), description="the L2 penalty's weight; each is tried in the folds"
    )
    iterations: int = Field(default=60, ge=1, description="at most")
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [{"regParam": penalty} for penalty in options.penalty]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from pyspark.ml.classification import LinearSVC

    return LinearSVC(maxIter=options.iterations, tol=1e-4, standardization=False, **point)
