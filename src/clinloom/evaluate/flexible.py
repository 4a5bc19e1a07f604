"""A calibration curve that may bend: how far risks lie from what was observed, risk by risk.

The outcome is regressed on a restricted cubic spline of the risk's log odds, with knots at the
5th, 35th, 65th and 95th percentile of the rows (Harrell, Regression Modeling Strategies, 2015,
2.4.6), by maximum likelihood. The distance of a row's risk to the curve is averaged over the rows
(ICI, the integrated calibration index) or its median and 90th percentile taken (E50, E90), as in
Austin and Steyerberg, Stat. Med. 38 (2019) 4051, who draw the curve by loess; by splines: Austin,
Harrell and van Klaveren, Stat. Med. 39 (2020) 2714.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clinloom.evaluate.calibration import CLOSE, LEAP, STEPS, log_odds
from clinloom.learn.rowwise import product

KNOTS = (0.05, 0.35, 0.65, 0.95)
SHARES = {"e50": 0.5, "e90": 0.9}
POINTS = 60  # of the drawn curve
LEAST = 1e-10  # smallest to greatest eigenvalue from which a fit has one answer

Floats = npt.NDArray[np.float64]


def distances(score: Floats, positive: Floats, total: Floats, knots: Floats) -> dict[str, Floats]:
    """ici, e50 and e90, (b,) each: ``score`` (g,), ``positive`` and ``total`` (b, g).

    NaN where the curve has no maximum of likelihood. ``knots``: see :func:`knots_of`.
    """
    apart = np.abs(curve(score, positive, total, knots) - score)
    rows = total.sum(axis=1)
    mean = np.divide(
        (apart * total).sum(axis=1), rows, out=np.full(len(rows), np.nan), where=rows > 0
    )
    return {"ici": mean} | dict(
        zip(SHARES, quantiles(apart, total, tuple(SHARES.values())), strict=True)
    )


def curve(score: Floats, positive: Floats, total: Floats, knots: Floats) -> Floats:
    """The observed risk (b, g) that the curve tells at each ``score`` (g,)."""
    basis = columns(log_odds(score), knots)
    return _sigmoid(_line(fitted(basis, positive, total), basis))


def drawn(score: Floats, positive: Floats, total: Floats) -> list[list[float]]:
    """[predicted, observed] along the curve of all rows (g,); empty where there is none."""
    knots = knots_of(score, total)
    found = curve(score, positive[None], total[None], knots)[0]
    if not np.isfinite(found).all():
        return []
    keep = np.unique(np.linspace(0, len(score) - 1, min(POINTS, len(score))).astype(int))[::-1]
    return [[round(float(score[at]), 6), round(float(found[at]), 6)] for at in keep]


def knots_of(score: Floats, total: Floats) -> Floats:
    """The knots on the scale of log odds, of rows by falling ``score`` (g,): 4, or none.

    Where fewer than three percentiles differ the curve is the straight line of calibration slope.
    """
    rising = log_odds(score)[::-1]
    edges = np.cumsum(total[::-1])
    at = np.searchsorted(edges, np.array(KNOTS) * edges[-1], side="left").clip(0, len(rising) - 1)
    found = np.unique(rising[at])
    return found if len(found) > 2 else np.zeros(0)


def columns(odds: Floats, knots: Floats) -> Floats:
    """(g, k): 1, the log odds, and the spline's terms, linear beyond the outer knots."""
    plain = [np.ones_like(odds), odds]
    if not len(knots):
        return np.column_stack(plain if np.ptp(odds) > 0 else plain[:1])
    *inner, before, last = knots
    wide = (last - knots[0]) ** 2

    def cube(knot: float) -> Floats:
        return np.maximum(odds - knot, 0.0) ** 3

    bent = [
        (
            cube(knot)
            - cube(before) * (last - knot) / (last - before)
            + cube(last) * (before - knot) / (last - before)
        )
        / wide
        for knot in inner
    ]
    return np.column_stack([*plain, *bent])


def fitted(basis: Floats, positive: Floats, total: Floats) -> Floats:
    """(b, k) coefficients of ``basis`` (g, k) by weighted maximum likelihood, by Newton's steps.

    A replicate's answer is the same whatever others stand beside it.
    """
    root = np.asarray(np.linalg.qr(basis / np.sqrt(max(1, len(basis))), mode="r"), np.float64)
    if len(basis) < basis.shape[1] or np.abs(np.diag(root)).min() < 1e-12 * np.abs(root).max():
        return np.full((len(positive), basis.shape[1]), np.nan)
    turn: Floats = np.linalg.inv(root).astype(np.float64)
    x = basis @ turn
    width = x.shape[1]
    one, other = np.triu_indices(width)
    pairs = x[:, one] * x[:, other]
    now = np.zeros((len(positive), width))
    out = np.full_like(now, np.nan)
    events = positive.sum(axis=1)
    open_ = np.flatnonzero((events > 0) & (events < total.sum(axis=1)))
    for _ in range(STEPS):
        if not open_.size:
            break
        at = now[open_]
        risk = _sigmoid(_line(at, x))
        expected = total[open_] * risk
        spread = expected * (1 - risk)
        slope = product(positive[open_] - expected, x)
        bend = np.empty((len(at), width, width))
        bend[:, one, other] = bend[:, other, one] = product(spread, pairs)
        sizes = np.linalg.eigvalsh(bend)
        sound = sizes[:, 0] > LEAST * sizes[:, -1]
        bend[~sound] = np.eye(width)
        step: Floats = np.linalg.solve(bend, slope[:, :, None])[:, :, 0].astype(np.float64)
        leap = np.abs(_line(step, x)).max(axis=1)
        step *= np.minimum(1, LEAP / np.maximum(leap, 1e-300))[:, None]
        now[open_] = at + step
        done = sound & (leap < CLOSE * (1 + np.abs(at).max(axis=1)))
        done &= spread.max(axis=1) > 1e-6
        out[open_[done]] = now[open_[done]]
        open_ = open_[sound & ~done]
    return product(out, turn.T)


def quantiles(values: Floats, weights: Floats, shares: tuple[float, ...]) -> list[Floats]:
    """Quantiles (b,) of values (b, g) that count ``weights`` (b, g) times, whole numbers.

    Linear between order statistics, as NumPy has it; NaN where a value that counts is none.
    """
    order = np.argsort(values, axis=1)
    told = np.take_along_axis(values, order, axis=1)
    upto = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    rows, last = np.arange(len(values)), values.shape[1] - 1
    known = (upto[:, -1] > 0) & np.isfinite(values).all(axis=1)
    out = []
    for share in shares:
        place = np.maximum(upto[:, -1] - 1, 0) * share
        low = np.floor(place)
        ends = []
        for at in (low, np.minimum(low + 1, np.maximum(upto[:, -1] - 1, 0))):
            first = (upto <= at[:, None]).sum(axis=1).clip(0, last)
            ends.append(told[rows, first])
        found = ends[0] + (ends[1] - ends[0]) * (place - low)
        out.append(np.where(known, found, np.nan))
    return out


def _line(coefficients: Floats, x: Floats) -> Floats:
    """(b, g) sums of ``coefficients`` (b, k) times the columns of ``x`` (g, k), in their order."""
    found = coefficients[:, :1] * x[:, 0]
    for at in range(1, x.shape[1]):
        found += coefficients[:, at : at + 1] * x[:, at]
    return found


def _sigmoid(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -35, 35))))
