"""A factorisation machine: a weight a feature, and one a pair of them (pyspark.ml).

Rendle (2010), "Factorization machines": the weight of a pair is the product of its features'
``factors``, so that thousands of pairs are learned from few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product as every
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from clinloom.learn.additive import LOG_ODDS, Additive, Columns
from clinloom.learn.algorithm import EXACT
from clinloom.learn.calibration import sigmoid
from clinloom.learn.rowwise import product
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Factorisation machine"
WEIGHTS = False  # Spark's knows no weights: rows of the rarer class are repeated
MISSING = False
CONNECT = True
TOLERANCE = EXACT
MARGIN: float | None = None
QUICK: dict[str, Any] = {"factors": (2,), "penalty": (0.01,), "iterations": 15}


class Options(Model):
    """The grid of factors and penalties."""

    factors: tuple[int, ...] = Field(
        default=(4,), description="numbers a feature for its pairs; each is tried in the folds"
    )
    penalty: tuple[float, ...] = Field(
        default=(0.01, 0.1), description="the L2 penalty's weight; each is tried in the folds"
    )
    iterations: int = Field(default=60, ge=1, description="at most")
    step: float = Field(default=0.05, gt=0, description="how far the first step goes")
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [
        {"factorSize": factors, "regParam": penalty}
        for factors, penalty in every(options.factors, options.penalty)
    ]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from pyspark.ml.classification import FMClassifier

    return FMClassifier(
        maxIter=options.iterations, stepSize=options.step, tol=1e-4, seed=seed, **point
    )


def flatten(fitted: Any, saved: Callable[[], pa.Table]) -> dict[str, np.ndarray]:
    """``coefficients`` (f,), ``factors`` (f, k) and intercept."""
    return {
        "coefficients": np.asarray(fitted.linear.toArray(), np.float64),
        "factors": np.asarray(fitted.factors.toArray(), np.float64),
        "intercept": np.array([fitted.intercept], np.float64),
    }


def _margin(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The log-odds (n,)."""
    factors = arrays["factors"]
    pairs = product(x, factors) ** 2 - product(x**2, factors**2)
    alone = product(x, arrays["coefficients"]) + arrays["intercept"][0]
    odds: np.ndarray = alone + pairs.sum(axis=1) / 2
    return odds


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) of the outcome for prepared rows ``x`` (n, f)."""
    return sigmoid(_margin(arrays, x))


def importance(arrays: Mapping[str, np.ndarray], features: int) -> np.ndarray:
    """A feature's absolute weight and the length of its factors (f,)."""
    lengths = np.sqrt((arrays["factors"] ** 2).sum(axis=1))
    sizes: np.ndarray = np.abs(arrays["coefficients"]) + lengths
    return sizes


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The log-odds as a sum over features: the Shapley values against the training mean, exactly.

    About the mean the log-odds are a sum of single features and of pairs; half of what a pair adds
    is told of either.
    """
    mean, factors = columns.mean, arrays["factors"]
    own = (factors**2).sum(axis=1)
    slope = arrays["coefficients"] + factors @ (mean @ factors) - own * mean

    def of(x: np.ndarray) -> np.ndarray:
        away = x - mean
        pairs = (away @ factors) @ factors.T - own * away
        return columns.gathered(away * (slope + pairs / 2))

    return Additive(LOG_ODDS, float(_margin(arrays, mean[None, :])[0]), of)
