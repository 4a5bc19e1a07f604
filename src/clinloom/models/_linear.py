"""Models whose log-odds are a weighted sum of the prepared features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom.learn.additive import LOG_ODDS, Additive, Columns
from clinloom.learn.calibration import sigmoid
from clinloom.learn.rowwise import product


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
