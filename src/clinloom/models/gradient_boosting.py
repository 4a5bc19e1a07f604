"""Gradient-boosted trees with the logistic loss (pyspark.ml)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from clinloom.learn.additive import LOG_ODDS, Additive, Columns
from clinloom.learn.algorithm import EXACT
from clinloom.learn.calibration import sigmoid
from clinloom.learn.rowwise import product
from clinloom.models import _forest, _shapley
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Gradient-boosted trees"
WEIGHTS = True
MISSING = False
CONNECT = True
TOLERANCE = EXACT
MARGIN: float | None = None
QUICK: dict[str, Any] = {"depth": (2,), "trees": 5}

flatten = _forest.flatten
importance = _forest.importance


class Options(Model):
    """The grid of depths, how many trees, and how fast they learn."""

    trees: int = Field(default=80, description="how many, one after the other")
    depth: tuple[int, ...] = Field(
        default=(2,), description="levels of a tree; each is tried in the folds"
    )
    rate: float = Field(default=0.2, description="how much of each tree is added")
    sample: float = Field(default=0.8, description="part of the training rows that a tree sees")
    leaf: int = Field(default=60, description="training rows that a leaf holds at least")
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [{"maxDepth": depth} for depth in options.depth]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from pyspark.ml.classification import GBTClassifier

    return GBTClassifier(
        maxIter=options.trees,
        stepSize=options.rate,
        subsamplingRate=options.sample,
        minInstancesPerNode=options.leaf,
        featureSubsetStrategy="onethird",
        seed=seed,
        **point,
    )


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) for prepared rows ``x`` (n, f), from the margin of the weighted trees."""
    margin = product(arrays["prediction"][_forest.leaves(arrays, x)], arrays["weight"])
    return sigmoid(2.0 * margin)


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The log-odds as a sum over features: the Shapley values of the weighted trees, twice."""
    sizes = np.diff(np.r_[arrays["root"], len(arrays["feature"])])
    value = 2.0 * np.repeat(arrays["weight"], sizes) * arrays["prediction"]
    return _shapley.additive(arrays, value, columns, LOG_ODDS)
