"""Whether acting on a risk does more good than harm: net benefit (Vickers and Elkin, 2006)."""

from __future__ import annotations

import numpy as np


def net_benefit(y: np.ndarray, p: np.ndarray) -> list[dict[str, float]]:
    """Net benefit of the model and of treating all, at threshold risks of 1 % to 80 %."""
    n, out = len(y), []
    for threshold in np.arange(0.01, 0.81, 0.01):
        odds = threshold / (1 - threshold)
        flag = p >= threshold
        hit, false = float((flag * y).sum()), float((flag * (1 - y)).sum())
        everyone = float(y.mean() - (1 - y.mean()) * odds)
        out.append(
            {
                "threshold": round(float(threshold), 2),
                "model": (hit - false * odds) / n,
                "all": everyone,
            }
        )
    return out
