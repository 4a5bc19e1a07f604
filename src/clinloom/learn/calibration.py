"""Recalibration: two numbers learned from out-of-fold predictions, applied to every score.

``p' = sigmoid(intercept + slope * logit(p))`` (Platt's scaling on the logit). It undoes what class
weighting did to the probabilities and never changes their order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clinloom.learn.risks import Risks

Floats = npt.NDArray[np.float64]
EDGE = 1e-6  # probabilities are drawn in from 0 and 1 by this much before the logit


def logit(p: Floats) -> Floats:
    """Log odds (n,) of probabilities (n,)."""
    inside = np.minimum(np.maximum(p, EDGE), 1.0 - EDGE)
    return np.log(inside / (1.0 - inside))


def learn(risks: Risks) -> tuple[float, float]:
    """(slope, intercept) by Newton's method with a little ridge; slope is kept positive."""
    odds = logit(risks.score)
    x = np.stack([odds, np.ones_like(odds)], axis=1)
    positive, total = risks.positive.astype(np.float64), risks.total.astype(np.float64)
    beta = np.array([1.0, 0.0])
    for _ in range(50):
        risk = sigmoid(x @ beta)
        gradient = x.T @ (positive - total * risk) - 1e-6 * beta
        hessian = (x * (total * risk * (1 - risk))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        held = _loss(x, positive, total, beta)
        while _loss(x, positive, total, beta + step) > held and np.abs(step).max() > 1e-12:
            step = step / 2  # Newton's full step may overshoot where risks are extreme
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    slope = float(beta[0]) if np.isfinite(beta).all() else 1.0
    if slope <= 0.01:  # no signal: keep the order, predict nearly the prevalence
        mean = float(np.clip(positive.sum() / total.sum(), EDGE, 1 - EDGE))
        return 0.01, float(np.log(mean / (1 - mean)) - 0.01 * np.average(odds, weights=total))
    return slope, float(beta[1])


def sigmoid(x: Floats) -> Floats:
    """The logistic function, of log odds that are drawn in to what a double can tell from 1."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))


def _loss(x: Floats, positive: Floats, total: Floats, beta: Floats) -> float:
    odds = x @ beta
    loss = total * np.logaddexp(0.0, odds) - positive * odds
    return float(loss.sum() + 5e-7 * (beta @ beta))


def apply(p: Floats, slope: float, intercept: float) -> Floats:
    """Calibrated probabilities (n,)."""
    return sigmoid(intercept + slope * logit(p))


def applied(risks: Risks, slope: float, intercept: float) -> Risks:
    """The groups with calibrated risks; their order is the same, for the slope is positive."""
    return risks.mapped(lambda p: apply(p, slope, intercept))


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
