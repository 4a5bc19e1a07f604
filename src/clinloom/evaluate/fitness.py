"""Is a model at work still as good as it was? Calibration, discrimination, and a running sum.

The outcomes of a period, or of a subgroup, stand as groups of equal risk (``learn.risks``). What is
asked is always the change from the held-out rows of the training, whose own sampling error counts:
a model that was a little off from the start raises no alarm for that.

The running sum (CUSUM) is that of Steiner et al. (Biostatistics 1 (2000) 441): each row adds the
log likelihood ratio of odds that are ``exp(SHIFT)`` times as high (or as low) as told; below 0 it
begins anew. Its limit is that which so many simulated streams of the same risks, with nothing
changed but chance and the reference's own error, exceed in the stated share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import erfc, xlogy

from clinloom.evaluate import calibration
from clinloom.learn.risks import Risks

SHIFT = 0.5  # logits that the running sum looks for
STREAMS = 10_000  # simulated streams without a change
EXPECTED = 20.0  # outcomes, and rows without one, from which a slope or an area is tested

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """What the outcomes of some rows tell, each with its standard error; NaN where nothing can be.

    ``intercept``: by how many logits the risks are too low (calibration in the large); ``slope``;
    ``area`` under the ROC curve, on the logit scale.
    """

    intercept: float
    intercept_error: float
    slope: float
    slope_error: float
    area: float
    area_error: float

    @property
    def auroc(self) -> float | None:
        """The area itself."""
        return float(1 / (1 + np.exp(-self.area))) if np.isfinite(self.area) else None

    def plain(self) -> dict[str, float | None]:
        """By name; None where nothing can be told."""
        return {k: v if np.isfinite(v) else None for k, v in self._asdict().items()}

    @classmethod
    def parse(cls, document: Any) -> Estimate:
        """The inverse of :meth:`plain`."""
        found = {k: document.get(k) for k in cls._fields}
        return cls(**{k: np.nan if v is None else float(v) for k, v in found.items()})


UNKNOWN = Estimate(*[np.nan] * 6)


def logit(p: Floats) -> Floats:
    """Log odds of risks that are drawn in from 0 and 1."""
    inside = np.clip(p, calibration.EDGE, 1 - calibration.EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def shifted(p: Floats, by: float) -> Floats:
    """Risks with their log odds moved."""
    return np.asarray(1 / (1 + np.exp(-(logit(p) + by))))


def estimate(risks: Risks, *, spread: float = 1.0, apart: float = 1.0) -> Estimate:
    """What the outcomes of some rows tell.

    ``spread``: how many times as far as independent rows' the sums of these vary (at least 1);
    ``apart``: independent rows for a row (at most 1), for the area.
    """
    if not 0 < risks.positives < risks.rows:
        return UNKNOWN
    positive, total = risks.positive.astype(float), risks.total.astype(float)
    _, slope, large = calibration.fit(risks.score, positive[None], total[None])[0]
    weight = total * shifted(risks.score, large) * (1 - shifted(risks.score, large))
    error = np.sqrt(spread / weight.sum()) if weight.sum() > 0 else np.nan
    area, area_error = _area(positive, total, apart)
    steep = _slope_error(risks.score, positive, total, slope) * np.sqrt(spread)
    return Estimate(float(large), float(error), float(slope), float(steep), area, area_error)


def _slope_error(score: Floats, positive: Floats, total: Floats, slope: float) -> float:
    """The slope's standard error, of the inverse information."""
    if not np.isfinite(slope):
        return np.nan
    x = logit(score)
    fitted = shifted(1 / (1 + np.exp(-slope * x)), 0.0)
    begin = calibration.fit(fitted, positive[None], total[None])[0][2]
    risk = shifted(fitted, begin) if np.isfinite(begin) else fitted
    weight = total * risk * (1 - risk)
    middle = (weight * x).sum() / weight.sum()
    information = (weight * (x - middle) ** 2).sum()
    return float(1 / np.sqrt(information)) if information > 0 else np.nan


def _area(positive: Floats, total: Floats, apart: float) -> tuple[float, float]:
    """The area under the ROC curve as a logit, with its error (DeLong et al., Biometrics 44 (1988)
    837); groups by falling risk, ties one half."""
    negative = total - positive
    events, others = positive.sum(), negative.sum()
    below = others - np.cumsum(negative) + negative / 2  # rows without, ranked below each group
    above = np.cumsum(positive) - positive / 2
    of_event, of_other = below / others, above / events
    area = float((positive * of_event).sum() / events)
    if not 0 < area < 1 or min(events, others) < 2:
        return np.nan, np.nan
    first = (positive * (of_event - area) ** 2).sum() / (events - 1)
    second = (negative * (of_other - area) ** 2).sum() / (others - 1)
    error = np.sqrt((first / events + second / others) / apart)
    scale = area * (1 - area)
    return float(np.log(area / (1 - area))), float(error / scale) if error > 0 else np.nan


class Sums(NamedTuple):
    """Of ``total`` outcomes of a period, against risks moved to the reference's calibration.

    ``observed``, ``expected``, ``variance`` of the outcomes; ``up`` and ``down``: the sums of
    log(1 - p + R p) for odds R times as high and as low.
    """

    observed: float
    expected: float
    variance: float
    up: float
    down: float
    total: float

    @classmethod
    def of(cls, risks: Risks, intercept: float) -> Sums:
        """Of groups of equal risk."""
        p, total = shifted(risks.score, intercept), risks.total
        up, down = (float((total * np.log1p(p * np.expm1(by))).sum()) for by in (SHIFT, -SHIFT))
        return cls(
            float(risks.positives),
            float((total * p).sum()),
            float((total * p * (1 - p)).sum()),
            up,
            down,
            float(total.sum()),
        )


def too_many(sums: Sums, *, spread: float, error: float) -> float:
    """The p-value that so many outcomes, or so few, came by chance where nothing changed.

    By the deviance of a binomial count of the same mean and variance, half an outcome taken off the
    difference. ``error``: of the reference's intercept.
    """
    o, e, v = sums.observed, sums.expected, sums.variance
    if not 0 < v < e:
        return 1.0
    n = e * e / (e - v)
    o = e + np.sign(o - e) * max(abs(o - e) - 0.5, 0.0)
    o = min(o, n)
    deviance = 2 * (xlogy(o, o / e) + xlogy(n - o, (n - o) / (n - e)))
    return float(erfc(np.sqrt(max(deviance, 0.0) / (2 * (spread + error**2 * v)))))


def differs(new: float, error: float, old: float, old_error: float, *, sides: int = 2) -> float:
    """The p-value that two estimates are of one number; ``sides`` 1: only whether it fell."""
    wide = np.hypot(error, old_error)
    if not np.isfinite(new - old) or not wide > 0:
        return 1.0
    z = (new - old) / wide / np.sqrt(2)
    return float(erfc(abs(z)) if sides == 2 else erfc(-z) / 2)


class Running(NamedTuple):
    """The running sums after each period (t,), and the limit that neither should reach."""

    up: Floats
    down: Floats
    limit: float


def running(
    periods: Sequence[Sums], *, level: float, spread: float, error: float, seed: int = 0
) -> Running:
    """The running sums of periods in order; ``level``: the chance that they reach the limit though
    nothing changed, within these periods."""
    found = np.array([tuple(one) for one in periods], float).reshape(-1, 6)
    observed, expected, variance, up, down, _ = found.T
    draw = np.random.default_rng(seed)
    off = draw.normal(0.0, error if np.isfinite(error) else 0.0, STREAMS)[:, None]
    most = np.zeros(STREAMS)
    high, low = np.zeros(STREAMS), np.zeros(STREAMS)
    for at in range(len(found)):
        e, v = expected[at], variance[at]
        mean = np.clip(e + off[:, 0] * v, 0.0, None)
        drawn = _streams(draw, mean, v / e if e > 0 else 1.0, spread)
        high = np.maximum(0.0, high + SHIFT * drawn - up[at])
        low = np.maximum(0.0, low - SHIFT * drawn - down[at])
        most = np.maximum(most, np.maximum(high, low))
    limit = float(np.quantile(most, 1 - level, method="higher")) if len(found) else np.inf
    paths = np.zeros((2, len(found)))
    for way, (sign, less) in enumerate(((SHIFT, up), (-SHIFT, down))):
        now = 0.0
        for at in range(len(found)):
            paths[way, at] = now = max(0.0, now + sign * observed[at] - less[at])
    return Running(paths[0], paths[1], limit)


def _streams(
    draw: np.random.Generator, mean: Floats, share: float, spread: float
) -> npt.NDArray[np.float64]:
    """Counts of outcomes of these means; a binomial whose variance is ``share`` of its mean, spread
    further where rows of a patient are alike."""
    p = min(max(1 - share, 1e-9), 1.0)
    wide = mean / p / spread
    trials = np.floor(wide + draw.random(mean.size)).astype(np.int64)
    return np.asarray(spread * draw.binomial(trials, p), float)
