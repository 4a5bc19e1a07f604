"""Trees as flat arrays: from the nodes of a saved Spark model, walked without Spark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 1 << 16  # places in trees that are walked at once: they stay in the processor's cache


def flatten(fitted: Any, saved: Callable[[], pa.Table]) -> dict[str, np.ndarray]:
    """A fitted tree or ensemble as flat arrays over all nodes of all trees.

    ``feature`` (-1 at a leaf), ``threshold``, ``left``, ``right`` (node numbers), ``counts``
    (m, 2): class weights, ``prediction``, ``gain`` (times weight), ``cover`` (training rows),
    ``root`` and ``weight`` a tree. Trees that take missing values as such have ``lacking`` as well:
    whether one goes left.
    """
    found = saved()
    ensemble = "nodeData" in found.column_names
    nodes = found.column("nodeData").combine_chunks() if ensemble else found.to_struct_array()
    nodes = nodes if isinstance(nodes, pa.StructArray) else nodes.combine_chunks()
    tree = found.column("treeID").to_numpy() if ensemble else np.zeros(len(nodes), np.int64)
    identity = tree.astype(np.int64) << 32 | _numbers(nodes, "id")
    order = np.argsort(identity)
    nodes, tree, identity = nodes.take(pa.array(order)), tree[order], identity[order]
    inner = _numbers(nodes, "leftChild") >= 0
    split = nodes.filter(pa.array(inner)).field("split")
    feature, threshold = np.full(len(nodes), -1, np.int64), np.zeros(len(nodes))
    feature[inner] = split.field("featureIndex").to_numpy()
    threshold[inner] = pc.list_element(split.field("leftCategoriesOrThreshold"), 0).to_numpy()
    left, right = np.arange(len(nodes)), np.arange(len(nodes))
    for name, child in (("leftChild", left), ("rightChild", right)):
        wanted = (identity >> 32 << 32 | _numbers(nodes, name))[inner]
        child[inner] = np.searchsorted(identity, wanted)
    stats = nodes.field("impurityStats")
    lengths = pc.list_value_length(stats)
    counts = np.zeros((len(nodes), 2))
    classes = lengths.to_numpy() == 2  # the trees of a boosted model hold other sums
    counts[classes] = stats.filter(pa.array(classes)).flatten().to_numpy().reshape(-1, 2)
    cover = _numbers(nodes, "rawCount").astype(np.float64)
    gain = np.where(inner, _numbers(nodes, "gain") * cover, 0.0)
    return {
        "feature": feature,
        "threshold": threshold,
        "left": left.astype(np.int64),
        "right": right.astype(np.int64),
        "counts": counts,
        "prediction": _numbers(nodes, "prediction"),
        "gain": gain,
        "cover": cover,
        "root": np.flatnonzero(np.r_[True, tree[1:] != tree[:-1]]).astype(np.int64),
        "weight": np.asarray(getattr(fitted, "treeWeights", None) or [1.0], np.float64),
    }


def _numbers(nodes: pa.StructArray, name: str) -> np.ndarray:
    numbers: np.ndarray = nodes.field(name).to_numpy(zero_copy_only=False)
    return numbers


def leaves(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The leaf that each row of ``x`` (n, f) reaches in each tree: (n, trees) node numbers."""
    size = max(1, BLOCK // len(arrays["root"]))
    parts = [_walked(arrays, x[at : at + size]) for at in range(0, max(1, len(x)), size)]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _walked(arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    node = np.repeat(arrays["root"][None, :], len(x), axis=0)
    rows = np.arange(len(x))[:, None]
    while True:
        feature = arrays["feature"][node]
        if (feature < 0).all():
            return node
        left = below(arrays, node, x[rows, np.maximum(feature, 0)])
        node = np.where(left, arrays["left"][node], arrays["right"][node])


def below(arrays: Mapping[str, np.ndarray], node: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Whether a value goes left at its node: one that is missing as the node's ``lacking`` says."""
    threshold = arrays["threshold"][node]
    left: np.ndarray = value <= threshold
    if "lacking" in arrays:  # no comparison with NaN holds
        left = np.where(arrays["lacking"][node], ~(value > threshold), left)
    return left


def shares(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The share (m,) of the outcome in each node's class weights."""
    counts = arrays["counts"]
    share: np.ndarray = counts[:, 1] / np.maximum(counts.sum(axis=1), 1e-300)
    return share


def importance(arrays: Mapping[str, np.ndarray], features: int) -> np.ndarray:
    """The share of impurity that each feature (f,) took away."""
    inner = arrays["feature"] >= 0
    out = np.bincount(arrays["feature"][inner], arrays["gain"][inner], features)
    return out / out.sum() if out.sum() > 0 else out
