"""The learned preparation as arithmetic on arrays: the same in Spark's workers and the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

RARE, COMMON = 0.05, 0.95  # a missing indicator is worth a column between these shares


@dataclass(frozen=True)
class Statistics:
    """What was learned, a number a feature (f,), and which columns come out.

    ``keep``: features that vary; ``indicator``: features whose missingness is a column of its own.
    """

    fill: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    keep: np.ndarray
    indicator: np.ndarray

    @property
    def width(self) -> int:
        """How many columns come out."""
        return len(self.keep) + len(self.indicator)

    def arrays(self) -> dict[str, np.ndarray]:
        """The statistics by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def learn(values: np.ndarray, *, lower: float, upper: float, use: Sequence[int] = ()) -> Statistics:
    """Statistics of training rows (n, f), NaN = missing: medians, quantile bounds, mean and SD.

    A feature without a value, or with one value only, is not kept; nor is one that ``use``
    (numbers of features; empty: all) does not name. Features that are missing from the same rows
    (all that are measured in one image) share one indicator.
    """
    missing = np.isnan(values)
    share = missing.mean(axis=0)
    empty = missing.all(axis=0)
    known = np.where(empty, 0.0, values)
    low, median, high = np.nanquantile(known, [lower, 0.5, upper], axis=0)
    filled = np.clip(np.where(np.isnan(known), median, known), low, high)
    centre, scale = filled.mean(axis=0), filled.std(axis=0)
    varies = ~empty & (scale > 1e-12 * np.maximum(1.0, np.abs(centre)))
    flagged = (share >= RARE) & (share <= COMMON)
    if len(use):
        used = np.isin(np.arange(values.shape[1]), use)
        varies, flagged = varies & used, flagged & used
    indicator = np.flatnonzero(flagged).astype(np.int64)
    _, first = np.unique(np.packbits(missing[:, indicator], axis=0), axis=1, return_index=True)
    return Statistics(
        fill=median,
        lower=low,
        upper=high,
        centre=centre,
        scale=np.where(varies, scale, 1.0),
        keep=np.flatnonzero(varies).astype(np.int64),
        indicator=indicator[np.sort(first)],
    )


def prepare(values: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Fill, clip, standardise (n, f) -> (n, width); missing indicators come last."""
    s = statistics
    part = values[:, s.keep]
    filled = np.where(np.isnan(part), s.fill[s.keep], part)
    clipped = np.clip(filled, s.lower[s.keep], s.upper[s.keep])
    scaled = (clipped - s.centre[s.keep]) / s.scale[s.keep]
    return np.hstack([scaled, np.isnan(values[:, s.indicator]).astype(np.float64)])


def clipped(values: np.ndarray, statistics: Statistics) -> np.ndarray:
    """How many values of each feature (f,) lie outside the learned bounds."""
    with np.errstate(invalid="ignore"):
        return ((values < statistics.lower) | (values > statistics.upper)).sum(axis=0)
