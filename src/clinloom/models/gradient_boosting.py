"""Gradient-boosted trees with the logistic loss (pyspark.ml)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from clinloom.learn.calibration import sigmoid
from clinloom.models import _forest
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Gradient-boosted trees"
WEIGHTS = True

flatten = _forest.flatten
importance = _forest.importance


class Options(Model):
    """The grid of depths, how many trees, and how fast they learn."""

    trees: int = 100
    depth: tuple[int, ...] = (2, 3)
    rate: float = 0.1
    sample: float = 0.8
    leaf: int = 60
    imbalance: Literal["weight", "none"] = "weight"


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


def probability(arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) for prepared rows ``x`` (n, f), from the margin of the weighted trees."""
    margin = arrays["prediction"][_forest.leaves(arrays, x)] @ arrays["weight"]
    return sigmoid(2.0 * margin)
