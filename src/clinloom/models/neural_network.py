"""A neural network: the multilayer perceptron of pyspark.ml, sigmoid layers and a softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
TITLE = "Neural network"
WEIGHTS = False  # Spark's perceptron knows no weights: rows of the rarer class are repeated
MISSING = False
CONNECT = True
TOLERANCE = EXACT
MARGIN: float | None = None
QUICK: dict[str, Any] = {"hidden": ((4,),), "iterations": (15,)}
CLOSE = 1e-10  # integrated gradients are refined until their sum, and each of them, is so near
PANELS = 4096  # at most, of 16 points each, along the way from the mean to a patient


class Options(Model):
    """The grid of hidden layers and iterations; to stop early keeps it from overfitting."""

    hidden: tuple[tuple[int, ...], ...] = Field(
        default=((8,),), description="units of each hidden layer; each list is tried in the folds"
    )
    iterations: tuple[int, ...] = Field(
        default=(6, 12, 24), description="when to stop; each is tried in the folds"
    )
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [
        {"hidden": list(hidden), "iterations": count}
        for hidden in options.hidden
        for count in options.iterations
    ]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from pyspark.ml.classification import MultilayerPerceptronClassifier

    layers = [features, *point["hidden"], 2]
    return MultilayerPerceptronClassifier(layers=layers, maxIter=point["iterations"], seed=seed)


def flatten(fitted: Any, saved: Callable[[], pa.Table]) -> dict[str, np.ndarray]:
    """The layers' sizes and all weights: a layer's (in, out) matrix by columns, then its bias."""
    return {
        "layers": np.asarray(fitted.getLayers(), np.int64),
        "weights": np.asarray(fitted.weights.toArray(), np.float64),
    }


def _matrices(arrays: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    out, at, weights = [], 0, arrays["weights"]
    for wide, narrow in zip(arrays["layers"][:-1], arrays["layers"][1:], strict=True):
        matrix = weights[at : at + wide * narrow].reshape(wide, narrow)
        at += wide * narrow
        out.append((matrix, weights[at : at + narrow]))
        at += narrow
    return out


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) of the outcome for prepared rows ``x`` (n, f)."""
    matrices = _matrices(arrays)
    for number, (matrix, bias) in enumerate(matrices):
        x = product(x, matrix) + bias
        if number < len(matrices) - 1:
            x = sigmoid(x)
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    risk: np.ndarray = shifted[:, 1] / shifted.sum(axis=1)
    return risk


def importance(arrays: Mapping[str, np.ndarray], features: int) -> np.ndarray:
    """Each input's summed absolute weight (f,) through the layers (Garson's idea)."""
    through = np.abs(_matrices(arrays)[-1][0])
    for matrix, _ in reversed(_matrices(arrays)[:-1]):
        through = np.abs(matrix) @ through
    weights: np.ndarray = through.sum(axis=1)
    return weights


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The log-odds as a sum over features: integrated gradients from the training mean.

    Sundararajan, Taly and Yan (2017): (x - mean) times the mean gradient along the straight way
    from the training mean to x, by Gauss and Legendre's rule on ever more panels until what they
    add differs from the log-odds' difference by less than ``CLOSE``, relative to it where it is
    above 1. They are no Shapley values, which a network only allows to be sampled.
    """
    matrices = _matrices(arrays)
    start = columns.mean[None, :]

    def of(x: np.ndarray) -> np.ndarray:
        found = [_integrated(matrices, start, row[None, :]) for row in x]
        return columns.gathered(np.array(found).reshape(x.shape))

    return Additive(LOG_ODDS, float(_margin(matrices, start)[0][0]), of)


Layers = list[tuple[np.ndarray, np.ndarray]]


def _margin(matrices: Layers, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log-odds (n,) of rows (n, f), and their gradient (n, f)."""
    outputs = []
    for matrix, bias in matrices[:-1]:
        x = sigmoid(x @ matrix + bias)
        outputs.append(x)
    last, bias = matrices[-1]
    direction = last[:, 1] - last[:, 0]
    gradient = np.repeat(direction[None, :], len(x), axis=0)
    for (matrix, _), output in zip(matrices[-2::-1], outputs[::-1], strict=True):
        gradient = (gradient * output * (1.0 - output)) @ matrix.T
    return x @ direction + (bias[1] - bias[0]), gradient


def _integrated(matrices: Layers, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """What each column (f,) adds on the way from one row (1, f) to another."""
    points, weights = np.polynomial.legendre.leggauss(16)
    wanted = float(_margin(matrices, end)[0][0] - _margin(matrices, start)[0][0])
    near = CLOSE * max(1.0, abs(wanted))
    before, panels = np.full(end.shape[1], np.inf), 1
    while panels <= PANELS:
        at = ((np.arange(panels)[:, None] + (points + 1) / 2) / panels).ravel()
        gradient = _margin(matrices, start + at[:, None] * (end - start))[1]
        found = (end - start)[0] * (np.tile(weights / 2 / panels, panels) @ gradient)
        if abs(found.sum() - wanted) <= near and np.abs(found - before).max() <= near:
            break
        before, panels = found, 2 * panels
    result: np.ndarray = found
    return result
