"""Logistic regression with an elastic net: the transparent reference (pyspark.ml)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from clinloom.learn.additive import LOG_ODDS, Additive, Columns
from clinloom.learn.calibration import sigmoid
from clinloom.learn.rowwise import product
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Logistic regression"
WEIGHTS = True
QUICK: dict[str, Any] = {"penalty": (0.01,), "elastic_net": (0.5,)}


class Options(Model):
    """The grid of penalties: their weight, and the share of the lasso in each."""

    penalty: tuple[float, ...] = Field(
        default=(0.01, 0.1), description="the penalty's weight; each is tried in the folds"
    )
    elastic_net: tuple[float, ...] = Field(
        default=(0.0, 0.5), description="the lasso's share, 0 to 1; each is tried with each penalty"
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

    return LogisticRegression(maxIter=options.iterations, standardization=False, **point)


def flatten(fitted: Any, saved: Callable[[], pa.Table]) -> dict[str, np.ndarray]:
    """Coefficients (f,) and intercept."""
    return {
        "coefficients": np.asarray(fitted.coefficients.toArray(), np.float64),
        "intercept": np.array([fitted.intercept], np.float64),
    }


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) of the outcome for prepared rows ``x`` (n, f)."""
    return sigmoid(product(x, arrays["coefficients"]) + arrays["intercept"][0])


def importance(arrays: Mapping[str, np.ndarray], features: int) -> np.ndarray:
    """Absolute standardised coefficients (f,)."""
    sizes: np.ndarray = np.abs(arrays["coefficients"])
    return sizes


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The log-odds as a sum over features: coefficient times distance from the training mean."""
    weights = arrays["coefficients"]
    base = float(columns.mean @ weights + arrays["intercept"][0])
    return Additive(LOG_ODDS, base, lambda x: columns.gathered((x - columns.mean) * weights))
