"""Logistic regression with an elastic net: the transparent reference (pyspark.ml)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from clinloom.learn.algorithm import EXACT
from clinloom.models import _linear
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Logistic regression"
WEIGHTS = True
MISSING = False
CONNECT = True
TOLERANCE = EXACT
MARGIN: float | None = None
QUICK: dict[str, Any] = {"penalty": (0.01,), "elastic_net": (0.5,)}

flatten = _linear.flatten
probability = _linear.probability
importance = _linear.importance
additive = _linear.additive


class Options(Model):
    """The grid of penalties: their weight, and the share of the lasso in each."""

    penalty: tuple[float, ...] = Field(
        default=(0.01, 0.05), description="the penalty's weight; each is tried in the folds"
    )
    elastic_net: tuple[float, ...] = Field(
        default=(0.2,), description="the lasso's share, 0 to 1; each is tried with each penalty"
    )
    iterations: int = Field(default=60, description="at most")
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [
        {"regParam": p, "elasticNetParam": e} for p in options.penalty for e in options.elastic_net
    ]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from pyspark.ml.classification import LogisticRegression

    return LogisticRegression(maxIter=options.iterations, tol=1e-4, standardization=False, **point)
