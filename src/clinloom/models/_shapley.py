"""Shapley values of trees, exact: the path-dependent game of TreeSHAP (Lundberg, 2018).

The game: the features of a set are known; at a node that asks for another one, both branches are
followed, each with its share of the training rows (its cover). A leaf is then a product over the
features on its path, of ``on`` (the patient follows the path at all of the feature's nodes: 1 or 0)
where the feature is known and ``cover`` (the product of the shares there) where it is not. Its
Shapley values are an integral (Owen's multilinear extension),

    (on - cover) * integral over t from 0 to 1 of the product over the others of cover + (on -
    cover) * t,

a polynomial of a degree below the depth, which Gauss and Legendre's rule of half as many nodes
integrates exactly. All leaves are done at once, in place of algorithm 2's recursion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinloom.learn.additive import Additive, Columns, Scale, lacking
from clinloom.models import _forest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAVES = 2048  # at once: what is held of them stays in the processor's cache
LEAST = 1e-9  # rows: a branch that none took can still be divided by


@dataclass(frozen=True)
class Leaves:
    """Some leaves of an ensemble, with what their paths ask, from the leaf (d, n) upwards.

    ``node``: the nodes below each split; a path that is shorter than others ends with its root.
    ``slot``: the step at which the same feature is first met. ``cover``: the share of rows that
    follow at all of a feature's splits, at its slot, else 1.
    """

    value: Floats
    node: Ints
    slot: Ints
    feature: Ints
    cover: Floats

    def contributions(self, follows: npt.NDArray[np.bool_], features: int) -> Floats:
        """What each feature adds (features,); ``follows``: whether the row would go to a node."""
        on = np.ones(self.node.shape)
        step, leaf = np.nonzero(~follows[self.node])
        on[self.slot[step, leaf], leaf] = 0.0
        gain = on - self.cover
        found, factor = np.zeros(gain.shape), np.empty(gain.shape)
        points, weights = np.polynomial.legendre.leggauss(len(gain) // 2 + 1)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            np.multiply(gain, point, out=factor)
            factor += self.cover
            whole = weight * factor.prod(axis=0)
            found += np.divide(whole, factor, out=factor)
        found *= gain
        found *= self.value
        return np.asarray(np.bincount(self.feature.ravel(), found.ravel(), features), np.float64)


def additive(
    arrays: Mapping[str, np.ndarray], value: Floats, columns: Columns, scale: Scale
) -> Additive:
    """An ensemble whose output is the sum of its leaves' ``value`` (a number a node).

    Raises StoreError where the arrays hold no ``cover``.
    """
    if "cover" not in arrays:
        raise lacking()
    share, parent = _above(arrays)
    node = np.flatnonzero(arrays["feature"] < 0)
    steps = []
    while (parent[node] != node).any():
        steps.append(node)
        node = parent[node]
    paths = np.array(steps, np.int64).reshape(len(steps), len(node))
    leaf = paths[0] if steps else node
    blocks = [
        _leaves(arrays, value[leaf[at]], paths[:, at], share, parent, columns)
        for at in (slice(n, n + LEAVES) for n in range(0, len(leaf), LEAVES))
    ]
    base = sum(float((block.value * block.cover.prod(axis=0)).sum()) for block in blocks)

    def of(x: Floats) -> Floats:
        out = np.zeros((len(x), columns.features))
        for row, found in zip(x, out, strict=True):
            follows = _followed(arrays, row)
            for block in blocks:
                found += block.contributions(follows, columns.features)
        return out

    return Additive(scale, base, of)


def _above(arrays: Mapping[str, np.ndarray]) -> tuple[Floats, Ints]:
    """Each node's share of the rows of the node above, and that node; a root: 1 and itself."""
    inner = np.flatnonzero(arrays["feature"] >= 0)
    cover = np.maximum(arrays["cover"], LEAST)
    share = np.ones(len(cover))
    parent = np.arange(len(cover))
    both = cover[arrays["left"][inner]] + cover[arrays["right"][inner]]
    for side in ("left", "right"):
        child = arrays[side][inner]
        share[child], parent[child] = cover[child] / both, inner
    return share, parent


def _followed(arrays: Mapping[str, np.ndarray], row: Floats) -> npt.NDArray[np.bool_]:
    """Whether a prepared row goes on to each node from the node above."""
    inner = np.flatnonzero(arrays["feature"] >= 0)
    below = _forest.below(arrays, inner, row[arrays["feature"][inner]])
    follows = np.ones(len(arrays["feature"]), np.bool_)
    follows[arrays["left"][inner]] = below
    follows[arrays["right"][inner]] = ~below
    return follows


def _leaves(
    arrays: Mapping[str, np.ndarray],
    value: Floats,
    node: Ints,
    share: Floats,
    parent: Ints,
    columns: Columns,
) -> Leaves:
    """The leaves whose paths are ``node`` (d, n)."""
    above = parent[node]
    feature = np.where(above != node, columns.feature[arrays["feature"][above]], -1)
    slot, cover = np.empty_like(node), np.ones(node.shape)
    every = np.arange(node.shape[1])
    for step in range(len(node)):
        slot[step] = (feature[: step + 1] == feature[step]).argmax(axis=0)
        cover[slot[step], every] *= share[node[step]]
    return Leaves(value, node, slot, np.maximum(feature, 0), cover)
