"""Recalibration: two numbers learned from out-of-fold predictions, applied to every score.

``p' = sigmoid(intercept + slope * logit(p))`` (Platt's scaling on the logit). It undoes what class
weighting did to the probabilities and never changes their order.
"""

from __future__ import annotations

import numpy as np

EDGE = 1e-6  # probabilities are drawn in from 0 and 1 by this much before the logit


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds (n,) of probabilities (n,)."""
    inside = np.minimum(np.maximum(p, EDGE), 1.0 - EDGE)
    return np.log(inside / (1.0 - inside))


def learn(p: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) by Newton's method with a little ridge; slope is kept positive."""
    x = np.stack([logit(p), np.ones_like(p)], axis=1)
    beta = np.array([1.0, 0.0])
    for _ in range(50):
        risk = sigmoid(x @ beta)
        gradient = x.T @ (label - risk) - 1e-6 * beta
        hessian = (x * (risk * (1 - risk))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        held = _loss(x, label, beta)
        while _loss(x, label, beta + step) > held and np.abs(step).max() > 1e-12:
            step = step / 2  # Newton's full step may overshoot where risks are extreme
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    slope = float(beta[0]) if np.isfinite(beta).all() else 1.0
    if slope <= 0.01:  # no signal: keep the order, predict nearly the prevalence
        mean = float(np.clip(label.mean(), EDGE, 1 - EDGE))
        return 0.01, float(np.log(mean / (1 - mean)) - 0.01 * logit(p).mean())
    return slope, float(beta[1])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, of log odds that are drawn in to what a double can tell from 1."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))


def _loss(x: np.ndarray, label: np.ndarray, beta: np.ndarray) -> float:
    odds = x @ beta
    return float((np.logaddexp(0.0, odds) - label * odds).sum() + 5e-7 * (beta @ beta))


def apply(p: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Calibrated probabilities (n,)."""
    return sigmoid(intercept + slope * logit(p))


def threshold(p: np.ndarray, label: np.ndarray, *, by: str) -> float:
    """The threshold (risk at or above it is positive) with the best F1 or Youden's index."""
    order = np.argsort(-p, kind="stable")
    hit, risk = np.cumsum(label[order]), p[order]
    last = np.append(risk[1:] != risk[:-1], True)  # a threshold falls between unequal risks
    flagged = np.arange(1, len(p) + 1)
    positive = label.sum()
    if by == "f1":
        score = 2 * hit / (flagged + positive)
    else:
        score = hit / positive - (flagged - hit) / max(1, len(p) - positive)
    best = int(np.argmax(np.where(last, score, -np.inf)))
    after = risk[best + 1] if best + 1 < len(risk) else 0.0
    return float((risk[best] + after) / 2)
