"""A single decision tree: rules that can be read (pyspark.ml)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from clinloom.learn.additive import PROBABILITY, Additive, Columns
from clinloom.learn.algorithm import EXACT
from clinloom.models import _forest, _shapley
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Decision tree"
WEIGHTS = True
MISSING = False
CONNECT = True
TOLERANCE = EXACT
MARGIN: float | None = None
QUICK: dict[str, Any] = {"depth": (4,)}

flatten = _forest.flatten
importance = _forest.importance


class Options(Model):
    """The grid of depths."""

    depth: tuple[int, ...] = Field(
        default=(3, 5), description="levels of a tree; each is tried in the folds"
    )
    leaf: int = Field(default=20, description="training rows that a leaf holds at least")
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [{"maxDepth": depth} for depth in options.depth]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from pyspark.ml.classification import DecisionTreeClassifier

    return DecisionTreeClassifier(minInstancesPerNode=options.leaf, seed=seed, **point)


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) of the outcome for prepared rows ``x`` (n, f): the leaf's share."""
    counts = arrays["counts"][_forest.leaves(arrays, x)[:, 0]]
    share: np.ndarray = counts[:, 1] / counts.sum(axis=1)
    return share


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The probability as a sum over features: the tree's Shapley values."""
    return _shapley.additive(arrays, _forest.shares(arrays), columns, PROBABILITY)
