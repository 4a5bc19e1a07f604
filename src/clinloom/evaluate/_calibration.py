"""Whether a risk of 20 % means 20 in 100.

Slope and intercept as in Van Calster et al., BMC Medicine 2019, 17:230: the slope of the outcome on
the logit of the risk, and the intercept with that slope held at 1 (calibration in the large).
"""

from __future__ import annotations

import numpy as np

EDGE = 1e-6
STEPS = 25
DECILES = 10


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds (n,), risks drawn in from 0 and 1 by 1e-6."""
    inside = np.clip(p, EDGE, 1 - EDGE)
    return np.log(inside / (1 - inside))


def slope(y: np.ndarray, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The calibration slope (replicates,); NaN where it does not exist."""
    a, b = np.zeros(len(weight)), np.ones(len(weight))
    for _ in range(STEPS):
        risk = _sigmoid(a[:, None] + b[:, None] * x)
        left, curve = weight * (y - risk), weight * risk * (1 - risk)
        g0, g1 = left.sum(axis=1), left @ x
        h00, h01, h11 = curve.sum(axis=1), curve @ x, curve @ (x * x)
        det = h00 * h11 - h01 * h01
        with np.errstate(divide="ignore", invalid="ignore"):
            da, db = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        da, db = np.clip(da, -2, 2), np.clip(db, -1, 1)
        a, b = a + da, b + db
        if np.nanmax(np.abs([da, db]), initial=0.0) < 1e-8:
            break
    settled = np.maximum(np.abs(da), np.abs(db)) < 1e-4
    return np.where(settled, b, np.nan)


def intercept(y: np.ndarray, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Calibration in the large (replicates,)."""
    a = np.zeros(len(weight))
    for _ in range(STEPS):
        risk = _sigmoid(a[:, None] + x)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (weight * (y - risk)).sum(axis=1) / (weight * risk * (1 - risk)).sum(axis=1)
        step = np.clip(step, -2, 2)
        a = a + step
        if np.nanmax(np.abs(step), initial=0.0) < 1e-8:
            break
    return np.where(np.abs(step) < 1e-4, a, np.nan)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def deciles(y: np.ndarray, p: np.ndarray) -> list[dict[str, float]]:
    """Predicted and observed risk by tenths of risk, with Wilson's 95 % interval."""
    out = []
    for rows in np.array_split(np.argsort(p, kind="stable"), min(DECILES, len(p))):
        n, share, z = len(rows), float(y[rows].mean()), 1.959964
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        out.append(
            {
                "predicted": float(p[rows].mean()),
                "observed": share,
                "low": float(max(0.0, centre - half)),
                "high": float(min(1.0, centre + half)),
                "n": n,
            }
        )
    return out
