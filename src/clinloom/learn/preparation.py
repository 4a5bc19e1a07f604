"""The learned preparation as arithmetic on arrays: the same in Spark's workers and the service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from clinloom.learn.sketch import Sketch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

RARE, COMMON = 0.05, 0.95  # a missing indicator is worth a column between these shares
OUTER = 0.001  # the quantiles that bound a feature of which most values are one and the same


@dataclass(frozen=True)
class Statistics:
    """What was learned, a number a feature (f,), and which columns come out.

    ``keep``: features that vary; ``indicator``: features whose missingness is a column of its own;
    ``share``: the part of the training rows that lack each of these (none: an older model's).
    """

    fill: Floats
    lower: Floats
    upper: Floats
    centre: Floats
    scale: Floats
    keep: Ints
    indicator: Ints
    share: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def width(self) -> int:
        """How many columns come out."""
        return len(self.keep) + len(self.indicator)

    def unfilled(self) -> Statistics:
        """The same for a model that takes missing values as such.

        Values are drawn in to their bounds and stay on their own scale; NaN stays NaN, which needs
        no flag, but a column: also of a feature that tells only by being there.
        """
        size = len(self.fill)
        return replace(
            self,
            fill=np.full(size, np.nan),
            centre=np.zeros(size),
            scale=np.ones(size),
            keep=np.union1d(self.keep, self.indicator),
            indicator=self.indicator[:0],
            share=np.zeros(0),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The statistics by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def learn(values: Floats, *, lower: float, upper: float, use: Sequence[int] = ()) -> Statistics:
    """Statistics of training rows (n, f), NaN = missing: medians, quantile bounds, mean and SD.

    A quantile that is the median itself is no bound, for it would leave nothing of a rare code:
    there the outermost thousandth is.
    A feature without a value, or with one value only, is not kept; nor is one that ``use``
    (numbers of features; empty: all) does not name. Features that are missing from the same rows
    (all that are measured in one image) share one indicator.
    """
    missing = np.isnan(values)
    share = missing.mean(axis=0)
    empty = np.asarray(missing.all(axis=0))
    known = np.where(empty, 0.0, values)
    low, median, high = _bounded(np.nanquantile(known, _levels(lower, upper), axis=0))
    filled = np.clip(np.where(np.isnan(known), median, known), low, high)
    centre, scale = filled.mean(axis=0), filled.std(axis=0)
    return _chosen(
        (low, median, high, centre, scale),
        empty=empty,
        share=share,
        patterns=lambda indicator: np.packbits(missing[:, indicator], axis=0),
        use=use,
    )


def learned(sketch: Sketch, *, lower: float, upper: float, use: Sequence[int] = ()) -> Statistics:
    """The same from a summary of the rows: exact where it kept every value, else by its centroids.

    The mean and the SD of the filled and bounded values are then those of the centroids; what
    spread is lost within one is less than a thousandth of the SD.
    """
    if sketch.values is not None:
        return learn(sketch.in_order(), lower=lower, upper=upper, use=use)
    empty = sketch.known == 0
    low, median, high = _bounded(np.nan_to_num(sketch.quantiles(_levels(lower, upper))))
    drawn = np.clip(np.nan_to_num(sketch.mean), low[:, None], high[:, None])
    centre = ((sketch.weight * drawn).sum(axis=1) + sketch.missing * median) / sketch.rows
    spread = (sketch.weight * (drawn - centre[:, None]) ** 2).sum(axis=1)
    scale = np.sqrt((spread + sketch.missing * (median - centre) ** 2) / sketch.rows)
    return _chosen(
        (low, median, high, centre, scale),
        empty=empty,
        share=sketch.missing / sketch.rows,
        patterns=lambda indicator: sketch.together[indicator],
        use=use,
    )


def _levels(lower: float, upper: float) -> list[float]:
    """The quantiles that are asked for: outermost, bound, median, bound, outermost."""
    return [min(lower, OUTER), lower, 0.5, upper, max(upper, 1 - OUTER)]


def _bounded(quantiles: Floats) -> tuple[Floats, Floats, Floats]:
    """Lower bound, median and upper bound (f,) by the quantiles (5, f) of :func:`_levels`."""
    least, low, median, high, most = quantiles
    return np.where(low < median, low, least), median, np.where(high > median, high, most)


def _chosen(
    numbers: tuple[Floats, Floats, Floats, Floats, Floats],
    *,
    empty: Flags,
    share: Floats,
    patterns: Callable[[Ints], np.ndarray],
    use: Sequence[int],
) -> Statistics:
    """Which features are kept, and which of those that are missing together are flagged."""
    low, median, high, centre, scale = numbers
    varies = ~empty & (scale > 1e-12 * np.maximum(1.0, np.abs(centre)))
    flagged = (share >= RARE) & (share <= COMMON)
    if len(use):
        used = np.isin(np.arange(len(share)), use)
        varies, flagged = varies & used, flagged & used
    indicator = np.flatnonzero(flagged).astype(np.int64)
    _, first = np.unique(patterns(indicator), axis=-1, return_index=True)
    indicator = indicator[np.sort(first)]
    return Statistics(
        fill=median,
        lower=low,
        upper=high,
        centre=centre,
        scale=np.where(varies, scale, 1.0),
        keep=np.flatnonzero(varies).astype(np.int64),
        indicator=indicator,
        share=np.asarray(share[indicator], np.float64),
    )


def prepare(values: Floats, statistics: Statistics) -> Floats:
    """Fill, clip, standardise (n, f) -> (n, width); missing indicators come last."""
    s = statistics
    part = values[:, s.keep]
    filled = np.where(np.isnan(part), s.fill[s.keep], part)
    clipped = np.clip(filled, s.lower[s.keep], s.upper[s.keep])
    scaled = (clipped - s.centre[s.keep]) / s.scale[s.keep]
    return np.hstack([scaled, np.isnan(values[:, s.indicator]).astype(np.float64)])


def clipped(values: Floats, statistics: Statistics) -> Ints:
    """How many values of each feature (f,) lie outside the learned bounds."""
    with np.errstate(invalid="ignore"):
        outside: Ints = ((values < statistics.lower) | (values > statistics.upper)).sum(axis=0)
        return outside
