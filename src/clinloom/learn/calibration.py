"""Recalibration: a rising map learned from out-of-fold predictions, applied to every score.

It undoes what class weighting did to the probabilities and never turns their order round. All of
its forms are one: ``q`` is the raw risk, or what a broken line (``curve``) makes of it, and

    p' = sigmoid(intercept + slope * logit(q) + bend * ln(1 - q))

- ``platt``: slope and intercept (Platt's scaling, on the logit);
- ``beta``: the bend as well (Kull, Silva Filho and Flach, AISTATS 2017, equation 7: ``a`` is the
  slope, ``b`` the slope less the bend, ``c`` the intercept, neither ``a`` nor ``b`` below 0);
- ``isotonic``: the broken line (Zadrozny and Elkan, KDD 2002, by pooling adjacent violators);
- ``none``: as the model has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from clinloom.learn.risks import Risks

Floats = npt.NDArray[np.float64]
Method = Literal["platt", "isotonic", "beta", "none"]
DECIMALS = 6  # to which risks are told apart by a broken line: its steps are no steeper
EDGE = 1e-6  # probabilities are drawn in from 0 and 1 by this much before the logit


@dataclass(frozen=True)
class Calibrator:
    """What was learned; ``curve`` (2, k): rising raw risks and what they become, or none."""

    slope: float = 1.0
    intercept: float = 0.0
    bend: float = 0.0
    curve: Floats = field(default_factory=lambda: np.zeros((2, 0)))

    def __call__(self, p: Floats) -> Floats:
        """Calibrated probabilities (n,) of raw ones (n,)."""
        if self.curve.size:
            p = np.interp(p, self.curve[0], self.curve[1])
        return apply(p, self.slope, self.intercept, self.bend)

    def then(self, slope: float, intercept: float) -> Calibrator:
        """This and, after it, another slope and intercept on the log-odds."""
        moved = intercept + slope * self.intercept
        return Calibrator(slope * self.slope, moved, slope * self.bend, self.curve)


def learned(risks: Risks, method: Method) -> Calibrator:
    """What out-of-fold risks and their outcomes ask for."""
    if method == "none":
        return Calibrator()
    if method == "isotonic":
        return Calibrator(curve=_pooled(risks))
    found = _beta(risks) if method == "beta" else None
    return found or Calibrator(*learn(risks))


def logit(p: Floats) -> Floats:
    """Log odds (n,) of probabilities (n,)."""
    inside = np.minimum(np.maximum(p, EDGE), 1.0 - EDGE)
    return np.log(inside / (1.0 - inside))


def learn(risks: Risks) -> tuple[float, float]:
    """(slope, intercept) by Newton's method with a little ridge; slope is kept positive."""
    odds = logit(risks.score)
    slope, intercept = _newton(risks, odds[:, None])
    positive, total = risks.positive.astype(np.float64), risks.total.astype(np.float64)
    if not np.isfinite([slope, intercept]).all():
        slope = 1.0
    if slope <= 0.01:  # no signal: keep the order, predict nearly the prevalence
        mean = float(np.clip(positive.sum() / total.sum(), EDGE, 1 - EDGE))
        return 0.01, float(np.log(mean / (1 - mean)) - 0.01 * np.average(odds, weights=total))
    return slope, intercept


def _beta(risks: Risks) -> Calibrator | None:
    """Beta calibration; None where neither side of it rises: there is no signal."""
    inside = np.clip(risks.score, EDGE, 1.0 - EDGE)
    sides = np.stack([np.log(inside), -np.log1p(-inside)], axis=1)
    used = [0, 1]
    while used:  # a side that falls is left out, as its authors do
        *found, intercept = _newton(risks, sides[:, used])
        if not np.isfinite([*found, intercept]).all():
            return None
        if min(found) >= 0:
            weight = dict(zip(used, found, strict=True))
            a, b = weight.get(0, 0.0), weight.get(1, 0.0)
            return Calibrator(slope=a, intercept=intercept, bend=a - b)
        used.pop(int(np.argmin(found)))
    return None


def _pooled(risks: Risks) -> Floats:
    """The isotonic regression of the outcome on the risk: the ends (2, k) of its level parts."""
    score, at = np.unique(np.round(risks.score, DECIMALS), return_inverse=True)
    total = np.bincount(at, risks.total)
    share = np.bincount(at, risks.positive) / total
    mean, mass, first = list[float](), list[float](), list[int]()
    for number, (height, weight) in enumerate(zip(share, total, strict=True)):
        mean.append(height)
        mass.append(weight)
        first.append(number)
        while len(mean) > 1 and mean[-2] >= mean[-1]:
            both = mass[-2] + mass[-1]
            mean[-2:] = [(mean[-2] * mass[-2] + mean[-1] * mass[-1]) / both]
            mass[-2:] = [both]
            first.pop()
    last = np.array([*first[1:], len(score)]) - 1
    ends = np.stack([np.array(first), last], axis=1).ravel()
    return np.stack([score[ends], np.repeat(mean, 2)])[:, np.diff(ends, prepend=-1) > 0]


def _newton(risks: Risks, columns: Floats) -> list[float]:
    """The coefficients of ``columns`` (g, m) and the intercept, of a logistic regression with a
    little ridge, by Newton's method."""
    x = np.hstack([columns, np.ones((len(columns), 1))])
    positive, total = risks.positive.astype(np.float64), risks.total.astype(np.float64)
    beta = np.append(np.ones(x.shape[1] - 1), 0.0)
    for _ in range(50):
        risk = sigmoid(x @ beta)
        gradient = x.T @ (positive - total * risk) - 1e-6 * beta
        hessian = (x * (total * risk * (1 - risk))[:, None]).T @ x + 1e-6 * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        held = _loss(x, positive, total, beta)
        while _loss(x, positive, total, beta + step) > held and np.abs(step).max() > 1e-12:
            step = step / 2  # Newton's full step may overshoot where risks are extreme
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    return [float(one) for one in beta]


def sigmoid(x: Floats) -> Floats:
    """The logistic function, of log odds that are drawn in to what a double can tell from 1."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))


def _loss(x: Floats, positive: Floats, total: Floats, beta: Floats) -> float:
    odds = x @ beta
    loss = total * np.logaddexp(0.0, odds) - positive * odds
    return float(loss.sum() + 5e-7 * (beta @ beta))


def apply(p: Floats, slope: float, intercept: float, bend: float = 0.0) -> Floats:
    """Calibrated probabilities (n,)."""
    odds = intercept + slope * logit(p)
    if bend:
        odds = odds + bend * np.log(1.0 - np.minimum(np.maximum(p, EDGE), 1.0 - EDGE))
    return sigmoid(odds)


def threshold(risks: Risks, *, by: str) -> float:
    """The threshold (risk at or above it is positive) with the best F1 or Youden's index.

    It falls midway between two unequal risks.
    """
    hit, flagged = np.cumsum(risks.positive), np.cumsum(risks.total)
    positive, rows = hit[-1], flagged[-1]
    if by == "f1":
        score = 2 * hit / (flagged + positive)
    else:
        score = hit / max(1, positive) - (flagged - hit) / max(1, rows - positive)
    best = int(np.argmax(score))
    after = risks.score[best + 1] if best + 1 < len(score) else 0.0
    return float((risks.score[best] + after) / 2)
