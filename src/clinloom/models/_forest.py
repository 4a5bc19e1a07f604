"""Trees as flat arrays: read from a saved Spark model, walked without Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

Saved = Callable[[Any], pa.Table]  # the nodes of a fitted tree or ensemble, as Spark saves them


def flatten(fitted: Any, saved: Saved) -> dict[str, np.ndarray]:
    """A fitted tree or ensemble as flat arrays over all nodes of all trees.

    ``feature`` (-1 at a leaf), ``threshold``, ``left``, ``right`` (node numbers), ``counts``
    (m, 2): class weights, ``prediction``, ``gain`` (times weight), ``root`` and ``weight`` a tree.
    """
    found = saved(fitted).to_pylist()
    nodes = [(row.get("treeID", 0), row.get("nodeData", row)) for row in found]
    nodes.sort(key=lambda n: (n[0], n[1]["id"]))
    at = {(tree, node["id"]): number for number, (tree, node) in enumerate(nodes)}
    size = len(nodes)
    feature, threshold = np.full(size, -1, np.int64), np.zeros(size)
    left, right = np.arange(size), np.arange(size)
    counts, gain = np.zeros((size, 2)), np.zeros(size)
    roots = sorted({tree for tree, _ in nodes})
    for number, (tree, node) in enumerate(nodes):
        stats = list(node.get("impurityStats") or [])
        if len(stats) == 2:
            counts[number] = stats
        if node["leftChild"] < 0:
            continue
        split = node["split"]
        feature[number] = split["featureIndex"]
        threshold[number] = split["leftCategoriesOrThreshold"][0]
        left[number], right[number] = at[tree, node["leftChild"]], at[tree, node["rightChild"]]
        gain[number] = node["gain"] * (node.get("rawCount") or sum(stats) or 1.0)
    weights = getattr(fitted, "treeWeights", None) or [1.0]
    predictions = np.array([node["prediction"] for _, node in nodes])
    return {
        "feature": feature,
        "threshold": threshold,
        "left": left.astype(np.int64),
        "right": right.astype(np.int64),
        "counts": counts,
        "prediction": predictions,
        "gain": gain,
        "root": np.array([at[tree, 0] for tree in roots], np.int64),
        "weight": np.asarray(weights, np.float64),
    }


def leaves(arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The leaf that each row of ``x`` (n, f) reaches in each tree: (n, trees) node numbers."""
    node = np.repeat(arrays["root"][None, :], len(x), axis=0)
    rows = np.arange(len(x))[:, None]
    while True:
        feature = arrays["feature"][node]
        if (feature < 0).all():
            return node
        below = x[rows, np.maximum(feature, 0)] <= arrays["threshold"][node]
        node = np.where(below, arrays["left"][node], arrays["right"][node])


def importance(arrays: dict[str, np.ndarray], features: int) -> np.ndarray:
    """The share of impurity that each feature (f,) took away."""
    inner = arrays["feature"] >= 0
    out = np.bincount(arrays["feature"][inner], arrays["gain"][inner], features)
    return out / out.sum() if out.sum() > 0 else out
