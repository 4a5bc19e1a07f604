"""Summaries of events on dense accumulators: (window, row, code).

A fact without a time holds at every moment: it is in every window, as old as nothing. Every event
falls into one bin, the narrowest window that holds it; bins are accumulated once and
then merged from the narrowest window to the widest, so a window more costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np

from clinloom.events import DAY, Flags, Floats, Ints
from clinloom.features._grid import Grid
from clinloom.features._past import Past, Seen

Statistic = Literal["count", "last", "mean", "min", "max", "slope", "first", "since", "sd", "sum"]
TOLD = "slope: least squares, per day; since: days since the last; sd: of at least two"


def fill_counts(past: Past, grid: Grid, out: Floats) -> None:
    """``present`` and ``count`` of events with or without a number; static facts hold always."""
    for seen in past.before(grid.codes, grid.span, numeric=False, static=True, cells=grid.cells):
        count = Bins(seen, grid).count
        if "count" in grid.statistics:
            grid.put(out[seen.rows], "count", count)
        if "present" in grid.statistics:
            grid.put(out[seen.rows], "present", count > 0)


def fill_numbers(past: Past, grid: Grid, out: Floats) -> None:
    """Statistics of numeric values before the index time; NaN where there is none (count: 0)."""
    for seen in past.before(grid.codes, grid.span, numeric=True, static=True, cells=grid.cells):
        bins = Bins(seen, grid)
        for statistic in grid.statistics:
            grid.put(out[seen.rows], statistic, SUMMARY[statistic](bins))


class Bins:
    """A block's events in their bins, and what is accumulated there."""

    def __init__(self, seen: Seen, grid: Grid):
        self.seen, self.grid = seen, grid
        self.shape = (len(grid.windows), seen.height, len(grid.codes))
        layer = seen.height * len(grid.codes)
        self.size = layer * len(grid.windows)
        self.key: Ints = seen.row * len(grid.codes) + seen.code
        for narrower in grid.windows[:-1]:
            assert narrower is not None  # noqa: S101  None sorts last
            self.key += np.multiply(seen.age > narrower, layer, dtype=np.int64)
        self.alone = np.bincount(self.key, minlength=self.size).reshape(self.shape)
        self.count = _widened(self.alone)

    @cached_property
    def _known(self) -> Flags | None:
        """Which events have a time; None where all have."""
        known: Flags = self.seen.age > 0
        return None if known.all() else known

    def parted(self) -> tuple[Bins, Bins | None]:
        """Of the events that have a time; and of those that have none, where there are any."""
        if self._known is None:
            return self, None
        timed, untimed = self.seen.where(self._known), self.seen.where(~self._known)
        return Bins(timed, self.grid), Bins(untimed, self.grid)

    def total(self, weights: Floats) -> Floats:
        """The sum in each bin."""
        total = np.bincount(self.key, weights, self.size).reshape(self.shape)
        return total.astype(np.float64, copy=False)  # without an event bincount counts in integers

    def each(self, start: float, put: Callable[[Floats], None]) -> Floats:
        """A flat accumulator of bins, filled by ``put``."""
        out = np.full(self.size, start)
        put(out)
        return out.reshape(self.shape)


def _widened(numbers: np.ndarray) -> np.ndarray:
    """Sums over windows from sums over bins."""
    out = numbers.copy()
    for window in range(1, len(out)):
        out[window] += out[window - 1]
    return out


def _count(bins: Bins) -> np.ndarray:
    return bins.count


def _mean(bins: Bins) -> Floats:
    total = _widened(bins.total(bins.seen.value))
    with np.errstate(invalid="ignore"):
        mean: Floats = np.divide(total, bins.count, out=total)
        return mean


def _extreme(fold: np.ufunc, start: float) -> Callable[[Bins], Floats]:
    def summary(bins: Bins) -> Floats:
        out = bins.each(start, lambda flat: fold.at(flat, bins.key, bins.seen.value))
        for window in range(1, len(out)):
            fold(out[window], out[window - 1], out=out[window])
        out[bins.count == 0] = np.nan
        return out

    return summary


def _end(pick: Callable[[Bins], Floats]) -> Callable[[Bins], Floats]:
    """The number that ``pick`` chooses by time; of those without one where there is no other."""

    def summary(bins: Bins) -> Floats:
        timed, untimed = bins.parted()
        out = pick(timed)
        if untimed is not None:
            np.copyto(out, pick(untimed), where=timed.count == 0)
        return out

    return summary


def _latest(bins: Bins) -> Floats:
    return _of_latest(bins, bins.seen.value)


def _of_latest(bins: Bins, numbers: Floats) -> Floats:
    """What ``numbers``, one an event, is for the latest event of each window."""

    def put(flat: Floats) -> None:
        flat[bins.key] = numbers  # in order of time: the last one stays

    out = bins.each(np.nan, put)
    for window in range(1, len(out)):
        np.copyto(out[window], out[window - 1], where=bins.count[window - 1] > 0)
    return out


def _earliest(bins: Bins) -> Floats:
    def put(flat: Floats) -> None:
        flat[bins.key[::-1]] = bins.seen.value[::-1]  # against time: the first one stays

    out = bins.each(np.nan, put)
    for window in range(1, len(out)):
        np.copyto(out[window], out[window - 1], where=bins.alone[window] == 0)
    return out


def _since(bins: Bins) -> Floats:
    """Days since the latest number that has a time; NaN where there is none."""
    timed, _ = bins.parted()
    return _of_latest(timed, timed.seen.age / DAY)


def _sum(bins: Bins) -> Floats:
    total = _widened(bins.total(bins.seen.value))
    total[bins.count == 0] = np.nan
    return total


def _sd(bins: Bins) -> Floats:
    """The standard deviation of a sample (n - 1); NaN for fewer than two numbers.

    Sums of squares are centred in each bin and merged pairwise (Chan, Golub and LeVeque, 1979).
    """
    n = bins.alone.astype(np.float64)
    mean = bins.total(bins.seen.value) / np.maximum(n, 1)
    apart = bins.seen.value - mean.ravel()[bins.key]
    squares = bins.total(apart * apart)
    for b in range(1, len(n)):
        a = b - 1
        both = n[a] + n[b]
        gap, share = mean[b] - mean[a], n[b] / np.maximum(both, 1)
        squares[b] += squares[a] + gap * gap * n[a] * share
        mean[b] = mean[a] * (1 - share) + mean[b] * share
        n[b] = both
    variance = np.divide(squares, n - 1, out=np.full(bins.shape, np.nan), where=n > 1)
    deviation: Floats = np.sqrt(variance)
    return deviation


def _slope(bins: Bins) -> Floats:
    """Least squares per day; NaN for fewer than two distinct times.

    Sums of squares are centred in each bin and merged pairwise (Chan, Golub and LeVeque, 1979).
    Times are counted from the bin's last event, so that equal times are exactly 0 apart.
    """
    bins, _ = bins.parted()
    seen, key = bins.seen, bins.key
    origin = np.zeros(bins.size, np.int64)
    origin[key] = seen.age
    x = (origin[key] - seen.age) / DAY
    n = bins.alone.astype(np.float64)
    safe = np.maximum(n, 1)
    mean_x, mean_y = bins.total(x) / safe, bins.total(seen.value) / safe
    dx, dy = x - mean_x.ravel()[key], seen.value - mean_y.ravel()[key]
    xx, xy = bins.total(dx * dx), bins.total(dx * dy)
    origin = origin.reshape(bins.shape)
    for b in range(1, len(n)):
        a = b - 1
        both = n[a] + n[b]
        share = n[b] / np.maximum(both, 1)
        # The wider bin's mean time, counted from the narrower one's origin.
        gap_x = mean_x[b] - (origin[b] - origin[a]) / DAY - mean_x[a]
        gap_y = mean_y[b] - mean_y[a]
        moved = (n[a] > 0) & (n[b] > 0)
        xx[b] += np.where(moved, xx[a] + gap_x * gap_x * n[a] * share, xx[a])
        xy[b] += np.where(moved, xy[a] + gap_x * gap_y * n[a] * share, xy[a])
        older = n[a] == 0
        mean_x[b] = np.where(older, mean_x[b], mean_x[a] + np.where(moved, gap_x * share, 0))
        mean_y[b] = np.where(older, mean_y[b], mean_y[a] + np.where(moved, gap_y * share, 0))
        origin[b] = np.where(older, origin[b], origin[a])
        n[b] = both
    slope: Floats = np.divide(xy, xx, out=np.full(bins.shape, np.nan), where=xx > 0)
    return slope


SUMMARY: dict[str, Callable[[Bins], np.ndarray]] = {
    "count": _count,
    "last": _end(_latest),
    "mean": _mean,
    "min": _extreme(np.minimum, np.inf),
    "max": _extreme(np.maximum, -np.inf),
    "slope": _slope,
    "first": _end(_earliest),
    "since": _since,
    "sd": _sd,
    "sum": _sum,
}
