"""Naive Bayes with a normal distribution of each feature in each class (pyspark.ml).

It takes features as independent of one another, so that what hangs together counts as often as it
is measured and its log-odds go far beyond what is true. They rank; a twentieth of them is the raw
risk, which no rounding draws to 0 or 1, and recalibration on the rows that the folds left out finds
the factor that is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from clinloom.learn.additive import LOG_ODDS, Additive, Columns
from clinloom.learn.algorithm import EXACT
from clinloom.learn.calibration import sigmoid
from clinloom.study import Model

REQUIRES: str | None = None
TITLE = "Naive Bayes"
WEIGHTS = True
MISSING = False
CONNECT = True
TOLERANCE = EXACT
SCALE = 0.05
MARGIN: float | None = SCALE
QUICK: dict[str, Any] = {}


class Options(Model):
    """It has nothing to be tuned."""

    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """One point."""
    return [{}]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator."""
    from pyspark.ml.classification import NaiveBayes

    return NaiveBayes(modelType="gaussian", **point)


def flatten(fitted: Any, saved: Callable[[], pa.Table]) -> dict[str, np.ndarray]:
    """``prior`` (2,): log shares; ``mean`` and ``variance`` (2, f) of each class."""
    return {
        "prior": np.asarray(fitted.pi.toArray(), np.float64),
        "mean": np.asarray(fitted.theta.toArray(), np.float64),
        "variance": np.asarray(fitted.sigma.toArray(), np.float64),
    }


def _evidence(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """What each feature (n, f) says for the outcome: a difference of log densities, scaled."""
    no, yes = (
        (x - mean) ** 2 / variance + np.log(variance)
        for mean, variance in zip(arrays["mean"], arrays["variance"], strict=True)
    )
    found: np.ndarray = (no - yes) / 2 * SCALE
    return found


def _prior(arrays: Mapping[str, np.ndarray]) -> float:
    return float(arrays["prior"][1] - arrays["prior"][0]) * SCALE


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Raw risk (n,) of the outcome for prepared rows ``x`` (n, f)."""
    return sigmoid(_prior(arrays) + _evidence(arrays, x).sum(axis=1))


def importance(arrays: Mapping[str, np.ndarray], features: int) -> np.ndarray:
    """The standardised difference (f,) of the classes' means."""
    spread = np.sqrt(arrays["variance"].mean(axis=0))
    sizes: np.ndarray = np.abs(arrays["mean"][1] - arrays["mean"][0]) / spread
    return sizes


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The raw log-odds as a sum over features, exactly: its evidence less that of the mean."""
    mean = _evidence(arrays, columns.mean[None, :])
    base = _prior(arrays) + float(mean.sum())
    return Additive(LOG_ODDS, base, lambda x: columns.gathered(_evidence(arrays, x) - mean))
