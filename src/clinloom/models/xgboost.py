"""Gradient-boosted trees of XGBoost, which take missing values as such (xgboost.spark).

Chen and Guestrin (2016), "XGBoost: a scalable tree boosting system". Its trees are of single
precision: it compares ``float(x) < split`` and adds up in ``float``. Here a split is the greatest
double that goes left, so that a double meets the very same leaf, and leaves add up in doubles: a
risk differs from XGBoost's own by what single precision rounds away (``TOLERANCE``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from itertools import product as every
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from clinloom.learn.additive import LOG_ODDS, Additive, Columns
from clinloom.learn.calibration import sigmoid
from clinloom.learn.rowwise import product
from clinloom.models import _forest, _shapley
from clinloom.study import Model

REQUIRES: str | None = "xgboost"
BESIDES = ("scikit-learn",)  # without which xgboost.spark makes no model, though it brings none
TITLE = "XGBoost"
WEIGHTS = True
MISSING = True
CONNECT = False  # xgboost.spark trains by RDDs
TOLERANCE = 2e-6  # a margin of some hundred leaves below 1, each of 24 bits
MARGIN: float | None = 0.5  # the probability is of 24 bits, coarse near 1; the margin is not
QUICK: dict[str, Any] = {"depth": (2,), "trees": 8, "rate": 0.3}

importance = _forest.importance


class Options(Model):
    """The grid of depths, and how the trees learn."""

    trees: int = Field(default=200, ge=1, description="how many, one after the other")
    depth: tuple[int, ...] = Field(
        default=(3, 4), description="levels of a tree; each is tried in the folds"
    )
    rate: float = Field(default=0.08, gt=0, description="how much of each tree is added")
    sample: float = Field(
        default=0.7, gt=0, le=1, description="part of the training rows that a tree sees"
    )
    columns: float = Field(
        default=0.3, gt=0, le=1, description="part of the features that a tree sees"
    )
    child: tuple[float, ...] = Field(
        default=(5.0,),
        description="weight (sum of the Hessian) that a leaf holds at least; each is tried",
    )
    ridge: tuple[float, ...] = Field(
        default=(5.0,), description="L2 penalty on what a leaf adds; each is tried"
    )
    workers: int = Field(
        default=1,
        ge=1,
        description="tasks that fit one model together, each with its part of the rows in memory;"
        " they need as many free cores at once",
    )
    imbalance: Literal["weight", "none"] = Field(
        default="weight", description="weight: both classes count the same in training"
    )


def grid(options: Options) -> list[dict[str, Any]]:
    """Every point of the grid."""
    return [
        {"max_depth": depth, "min_child_weight": child, "reg_lambda": ridge}
        for depth, child, ridge in every(options.depth, options.child, options.ridge)
    ]


def estimator(options: Options, point: dict[str, Any], *, features: int, seed: int) -> Any:
    """The Spark estimator of a point."""
    from xgboost.spark import SparkXGBClassifier

    logging.getLogger("XGBoost-PySpark").setLevel(logging.WARNING)  # else lines a fit, on stderr
    return SparkXGBClassifier(
        n_estimators=options.trees,
        learning_rate=options.rate,
        subsample=options.sample,
        colsample_bytree=options.columns,
        tree_method="hist",
        missing=float("nan"),
        random_state=seed,
        num_workers=options.workers,
        verbosity=0,
        verbose=False,
        **point,
    )


def flatten(fitted: Any, saved: Callable[[], pa.Table]) -> dict[str, np.ndarray]:
    """The booster's trees as ``_forest`` has them; ``base``: the log-odds before any tree."""
    learner = json.loads(bytes(fitted.get_booster().save_raw("json")))["learner"]
    trees = learner["gradient_booster"]["model"]["trees"]
    start = np.cumsum([0, *(len(tree["left_children"]) for tree in trees)])

    def of(name: str, kind: type[np.generic]) -> np.ndarray:
        return np.concatenate([np.asarray(tree[name], kind) for tree in trees])

    left, right = of("left_children", np.int64), of("right_children", np.int64)
    inner, at = left >= 0, np.arange(len(left))
    offset = np.repeat(start[:-1], np.diff(start))
    left, right = (np.where(inner, child + offset, at) for child in (left, right))
    split = of("split_conditions", np.float32)
    return {
        "feature": np.where(inner, of("split_indices", np.int64), -1),
        "threshold": np.where(inner, _at_most(split), 0.0),
        "left": left,
        "right": right,
        "lacking": of("default_left", np.bool_),
        "prediction": np.where(inner, 0.0, split.astype(np.float64)),
        "gain": np.where(inner, of("loss_changes", np.float64), 0.0),
        "cover": _covers(left, right, of("sum_hessian", np.float64)),
        "root": start[:-1].astype(np.int64),
        "base": np.array([_base(learner["learner_model_param"]["base_score"])]),
    }


def _at_most(split: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The greatest double (m,) whose nearest float lies below ``split`` (m,)."""
    before = np.nextafter(split, np.float32(-np.inf))
    middle = (before.astype(np.float64) + split.astype(np.float64)) / 2
    even = before.view(np.int32) % 2 == 0  # a tie is rounded to the float that ends with 0
    return np.where(even, middle, np.nextafter(middle, -np.inf))


def _covers(left: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weight (m,) below each node, added up from its leaves: children stand behind parents."""
    cover = weight.copy()
    for node in np.flatnonzero(left != np.arange(len(left)))[::-1]:
        cover[node] = cover[left[node]] + cover[right[node]]
    return cover


def _base(told: str) -> float:
    """The log-odds of ``base_score``, a probability that is told as ``5E-1`` or ``[5E-1]``."""
    risk = np.float64(np.float32(told.strip("[]")))
    return float(np.log(risk) - np.log1p(-risk))


def probability(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Probability (n,) of the outcome for prepared rows ``x`` (n, f), NaN = missing."""
    leaves = arrays["prediction"][_forest.leaves(arrays, x)]
    return sigmoid(arrays["base"][0] + product(leaves, np.ones(leaves.shape[1])))


def additive(arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
    """The log-odds as a sum over features: the trees' Shapley values, by covers of Hessians."""
    found = _shapley.additive(arrays, arrays["prediction"], columns, LOG_ODDS)
    return Additive(LOG_ODDS, found.base + float(arrays["base"][0]), found.of)
