"""Can the risks be believed? Brier score, calibration slope and intercept, tenths by risk.

logit P(outcome) = a + b logit(p): b is the slope (1 is ideal, below 1 the risks are too extreme);
the intercept is a where b is held at 1, calibration in the large (0 is ideal, below 0 the risks
are too high). Cox, Biometrika 45 (1958) 562; Van Calster et al., BMC Medicine 17 (2019) 230.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clinloom.learn.rowwise import product

EDGE = 1e-7  # risks of 0 and 1 have no logit
STEPS = 60
LEAP = 4.0  # the most that one step of Newton's may move a row's log odds
CLOSE = 1e-10
TENTHS = 10


def believable(
    score: np.ndarray, positive: np.ndarray, total: np.ndarray, *, start: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """brier, calibration_slope, calibration_intercept and observed_expected, (b,) each.

    ``score`` (g,), ``positive`` and ``total`` (b, g); ``start`` (1, 3), an earlier :func:`fit`,
    saves steps. ``observed_expected``: outcomes that came for each that the risks add up to.
    """
    found = fit(score, positive, total, start=start)
    return {
        "brier": brier(score, positive, total),
        "calibration_slope": found[:, 1],
        "calibration_intercept": found[:, 2],
        "observed_expected": observed_expected(score, positive, total),
    }


def brier(score: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The mean squared distance (b,) of risk and outcome."""
    loss = product(positive, (1 - score) ** 2) + product(total - positive, score**2)
    return _share(loss, total.sum(axis=1))


def scaled(loss: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """1 - Brier score / that of the prevalence told to all (b,): 1 is perfect, 0 tells nothing.

    Steyerberg et al., Epidemiology 21 (2010) 128.
    """
    share = _share(positive.sum(axis=1), total.sum(axis=1))
    return 1 - _share(loss, share * (1 - share))


def observed_expected(score: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Outcomes that came for each that the risks add up to (b,)."""
    return _share(positive.sum(axis=1), product(total, score))


def _share(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below; NaN where below is not above 0."""
    out: np.ndarray = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return out


def log_odds(score: np.ndarray) -> np.ndarray:
    """The log odds of risks, of 0 and 1 drawn in."""
    inside = np.clip(score, EDGE, 1 - EDGE)
    odds: np.ndarray = np.log(inside) - np.log1p(-inside)
    return odds


def cells(total: np.ndarray, most: int) -> np.ndarray:
    """Where groups (g,) begin that hold the same share of the rows, at most ``most`` of them."""
    if len(total) <= most:
        return np.arange(len(total))
    edges = np.cumsum(total)
    at = np.searchsorted(edges, edges[-1] * np.arange(most) / most, side="right")
    return np.unique(np.minimum(at, len(total) - 1))


def joined(
    score: np.ndarray, once: np.ndarray, starts: np.ndarray, *weights: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Fewer groups: their mean score by ``once`` (g,), and ``weights`` (b, g) added up."""
    if len(starts) == len(score):
        return (score, *weights)
    mean = np.add.reduceat(score * once, starts) / np.add.reduceat(once, starts)
    return (mean, *(np.add.reduceat(one, starts, axis=1) for one in weights))


def fit(
    score: np.ndarray, positive: np.ndarray, total: np.ndarray, *, start: np.ndarray | None = None
) -> np.ndarray:
    """(b, 3): intercept at the mean log odds, slope, and intercept where the slope is 1.

    Weighted maximum likelihood for all replicates at once; NaN where there is no maximum (one
    class, classes that separate, a single risk).
    """
    odds = log_odds(score)
    middle = odds.mean()
    begin = np.array([middle, 1.0, 0.0]) if start is None else start[0].copy()
    begin = np.where(np.isfinite(begin), begin, [middle, 1.0, 0.0])
    both = _newton(odds - middle, positive, total, begin=begin[:2], slope=True)
    large = _newton(odds, positive, total, begin=np.array([begin[2], 1.0]), slope=False)
    return np.column_stack([both, large[:, 0]])


def _newton(
    x: np.ndarray, positive: np.ndarray, total: np.ndarray, *, begin: np.ndarray, slope: bool
) -> np.ndarray:
    """(b, 2) intercept and slope; a replicate leaves the work when it has converged."""
    count = len(positive)
    out = np.full((count, 2), np.nan)
    now = np.repeat(begin[None], count, axis=0)
    events = positive.sum(axis=1)
    open_ = np.flatnonzero((events > 0) & (events < total.sum(axis=1)))
    ends = np.array([x.min(), x.max()])
    square = x * x
    for _ in range(STEPS):
        if not open_.size:
            break
        at = now[open_]
        risk = 1 / (1 + np.exp(-np.clip(at[:, :1] + at[:, 1:] * x, -35, 35)))
        expected = total[open_] * risk
        rest, spread = positive[open_] - expected, expected * (1 - risk)
        g0, h00 = rest.sum(axis=1), spread.sum(axis=1)
        step = np.zeros_like(at)
        if slope:
            g1, h01, h11 = product(rest, x), product(spread, x), product(spread, square)
            det = h00 * h11 - h01 * h01
            sound = det > 1e-12 * np.maximum(h00 * h11, 1e-300)
            det = np.where(sound, det, 1)
            step[:, 0] = (h11 * g0 - h01 * g1) / det
            step[:, 1] = (h00 * g1 - h01 * g0) / det
        else:
            sound = h00 > 1e-12
            step[:, 0] = g0 / np.where(sound, h00, 1)
        leap = np.abs(step[:, :1] + step[:, 1:] * ends).max(axis=1)
        step *= np.minimum(1, LEAP / np.maximum(leap, 1e-300))[:, None]
        now[open_] = at + step
        done = sound & (np.abs(step).max(axis=1) < CLOSE * (1 + np.abs(at).max(axis=1)))
        # Where the classes separate the likelihood has no maximum: every risk runs to 0 or 1.
        done &= spread.max(axis=1) > 1e-6
        out[open_[done]] = now[open_[done]]
        open_ = open_[sound & ~done]
    return out


def tenths(score: np.ndarray, positive: np.ndarray, total: np.ndarray) -> list[dict[str, Any]]:
    """Mean predicted and observed risk in tenths of the rows; (g,) each; ties stay together."""
    tenth = tenth_of(total)
    out = []
    for at in np.unique(tenth)[::-1]:
        inside = tenth == at
        rows, events = total[inside].sum(), positive[inside].sum()
        low, high = wilson(events, rows)
        predicted = (score[inside] * total[inside]).sum() / rows
        out.append(
            {
                "predicted": float(predicted),
                "observed": float(events / rows),
                "low": low,
                "high": high,
                "n": int(rows),
            }
        )
    return out


def tenth_of(total: np.ndarray) -> np.ndarray:
    """The tenth of the rows (g,) that each group by falling score lies in, 0 the highest risks."""
    rank = np.cumsum(total) - total / 2
    tenth: np.ndarray = np.minimum((TENTHS * rank / total.sum()).astype(int), TENTHS - 1)
    return tenth


def observed(once: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """(b, TENTHS): the observed risk in the tenths of all rows ``once`` (g,); NaN of none."""
    tenth = tenth_of(once)
    starts = np.flatnonzero(np.r_[True, tenth[1:] != tenth[:-1]])
    found = _share(
        np.add.reduceat(positive, starts, axis=1), np.add.reduceat(total, starts, axis=1)
    )
    out = np.full((len(total), TENTHS), np.nan)
    out[:, tenth[starts]] = found
    return out


def wilson(events: float, rows: float, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Limits of a proportion (Wilson, J. Am. Stat. Assoc. 22 (1927) 209), 95 % unless told."""
    share, extra = events / rows, z * z / rows
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * np.sqrt(share * (1 - share) / rows + extra / (4 * rows))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
