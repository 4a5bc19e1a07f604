"""Has a distribution changed? One test of counts, sound for few and for many, and sizes of effect.

Every question is put as two shares: of the reference, ``c`` of ``m``, and of new rows, ``x`` of
``n``. Its p-value is that of the deviance of the 2 x 2 table with half a row taken off the
difference: unlike Pearson's or a normal test it holds far out in the tails and for rare things,
where thousands of tests look (McCullagh and Nelder, Generalized Linear Models, 1989, 4.4). Rows of
a patient are alike, so counts are scaled to the number of independent rows, at least
``(rows)^2 / (sum of the squared rows of each patient)`` (Kish, Survey Sampling, 1965, 8.2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import erfc, xlogy

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Drift(NamedTuple):
    """Of each feature (f,): p-value, population stability index above chance, KS distance."""

    p: Floats
    psi: Floats
    ks: Floats


def effective(rows: npt.ArrayLike, squares: npt.ArrayLike) -> Floats:
    """Independent rows, at least: ``squares`` is the sum of the squared rows of each patient."""
    n, s = np.asarray(rows, float), np.asarray(squares, float)
    return np.asarray(np.divide(n * n, s, out=np.zeros(np.shape(n)), where=s > 0))


def changed(
    x: npt.ArrayLike, n: npt.ArrayLike, c: npt.ArrayLike, m: npt.ArrayLike, *, sides: int = 2
) -> Floats:
    """The p-value that ``x`` of ``n`` and ``c`` of ``m`` are one share; arrays of one shape.

    ``sides``: 1 asks only whether the new share is greater. 1 where nothing can be said.
    """
    x, n, c, m = (np.asarray(a, np.float64) for a in np.broadcast_arrays(x, n, c, m))
    with np.errstate(divide="ignore", invalid="ignore"):
        together = (x + c) / (n + m)
        expected, other = n * together, m * together
        off = x - expected
        near = np.sign(off) * np.maximum(np.abs(off) - 0.5, 0)
        deviance = 2 * (
            _part(expected + near, expected)
            + _part(n - expected - near, n - expected)
            + _part(other - near, other)
            + _part(m - other + near, m - other)
        )
    root = np.sqrt(np.maximum(np.where(np.isfinite(deviance), deviance, 0.0), 0.0))
    p = erfc(root / np.sqrt(2))
    if sides == 1:
        p = np.where(off > 0, p / 2, 1.0)
    return np.asarray(np.where(np.isfinite(p), p, 1.0))


def _part(found: Floats, expected: Floats) -> Floats:
    """What a cell adds to half the deviance."""
    return np.asarray(xlogy(found, found) - xlogy(found, expected))


def cells(new: npt.ArrayLike, n: npt.ArrayLike, reference: npt.ArrayLike, m: float) -> Drift:
    """Whether the known values of features changed: counts (f, k) of their cells.

    ``n`` (one, or (f,)) and ``m``: independent rows for a row. Asked is of every cut between two
    cells whether the share below it changed, and of every cell whether its own did; the least
    p-value counts, times how many were asked (Bonferroni). The largest difference at a cut is the
    Kolmogorov-Smirnov distance of the values in their cells. ``psi`` is the sum over the cells of
    (b - a) ln(b / a), half a row added to each, less what chance gives: (k - 1)(1/n + 1/m).
    """
    x, c = np.asarray(new, float), np.asarray(reference, float)
    known = (c > 0).sum(axis=1)
    n = np.broadcast_to(np.asarray(n, float), known.shape)[:, None]
    rows, others = x.sum(axis=1, keepdims=True), c.sum(axis=1, keepdims=True)
    below, under = np.cumsum(x, axis=1)[:, :-1], np.cumsum(c, axis=1)[:, :-1]
    told = np.concatenate([x, below], axis=1), np.concatenate([c, under], axis=1)
    p = changed(n * told[0], n * rows, m * told[1], m * others)
    asked = np.maximum(1, 2 * known - 3)  # the first and the last cell are cuts, too
    least = np.minimum(1.0, p.min(axis=1, initial=1.0) * asked)
    with np.errstate(divide="ignore", invalid="ignore"):
        ks = np.abs(below / rows - under / others).max(axis=1, initial=0.0)
        b, a = (
            (x + 0.5) / (rows + 0.5 * known[:, None]),
            (c + 0.5) / (others + 0.5 * known[:, None]),
        )
        index = np.where(c > 0, (b - a) * np.log(b / a), 0.0).sum(axis=1)
        chance = (known - 1) * (1 / (n * rows) + 1 / (m * others))[:, 0]
    some = (rows[:, 0] > 0) & (others[:, 0] > 0)
    return Drift(
        np.where(some, least, 1.0),
        np.where(some, np.maximum(index - chance, 0.0), np.nan),
        np.where(some, ks, np.nan),
    )


def alarming(p: npt.ArrayLike, level: float) -> Flags:
    """Which of many tests reject, by Benjamini and Hochberg (J. R. Stat. Soc. B 57 (1995) 289).

    Where nothing changed, one or more reject with a chance of at most ``level``; where some things
    did, at most that share of what is told is false, on average.
    """
    values = np.asarray(p, float)
    flat = values.ravel()
    order = np.sort(flat)
    passed = np.flatnonzero(order <= level * np.arange(1, flat.size + 1) / max(1, flat.size))
    bar = order[passed[-1]] if passed.size else -1.0
    return np.asarray(values <= bar)


def holm(p: npt.ArrayLike, level: float) -> Flags:
    """Which of several tests reject, so that with a chance of at most ``level`` any does falsely.

    (Holm, Scand. J. Stat. 6 (1979) 65)
    """
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    bars = level / np.arange(values.size, 0, -1)
    passed = np.minimum.accumulate(values[order] <= bars) if values.size else np.zeros(0, bool)
    out = np.zeros(values.size, bool)
    out[order] = passed
    return out
