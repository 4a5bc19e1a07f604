"""Random forest: many decorrelated trees, averaged (pyspark.ml)."""

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
TITLE = "Random forest"
WEIGHTS = True
MISSING = False
CONNECT = True
TOLERANCE = EXACT
MARGIN: float | None = None
QUICK: dict[str, Any] = {"depth": (4,), "trees": 10}

# Megabytes of histograms in each task, all of which are sent and merged: with Spark's own 256, fits
# side by side fill a heap of 3 GB where features are many.
MEMORY = 64

flatten = _forest.flatten
importance = _forest.importance


class Options(Model):
    """The grid of depths, and how many trees."""

    trees: int = Field(default=80, description="how many")
    depth: tuple[int, ...] = Field(
        default=(6, 9), description="levels of a tree; each is tried in the folds"
    )
    leaf: int = Field(default=5, description="training rows that a leaf holds at least")
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [{"maxDepth": depth} for depth in options.depth]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from pyspark.ml.classification import RandomForestClassifier

    return RandomForestClassifier(
        numTrees=options.trees,
        minInstancesPerNode=options.leaf,
        maxMemoryInMB=MEMORY,
        seed=seed,
        **point,
    )


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) for prepared rows ``x`` (n, f): the mean of the leaves' shares."""
    counts = arrays["counts"]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-300)
    votes = share[_forest.leaves(arrays, x)].sum(axis=1)
    risk: np.ndarray = votes[:, 1] / votes.sum(axis=1)
    return risk


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The probability as a sum over features: the mean of the trees' Shapley values."""
    return _shapley.additive(
        arrays, _forest.shares(arrays) / len(arrays["root"]), columns, PROBABILITY
    )
