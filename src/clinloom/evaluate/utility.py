"""What is won by acting on the model: net benefit.

net benefit(t) = TP/n - FP/n · t/(1 - t): a threshold t says that one missed outcome weighs as
much as (1 - t)/t false alarms (Vickers and Elkin, Med. Decis. Making 26 (2006) 565).
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = np.arange(1, 100) / 100


def net_benefit(
    score: np.ndarray, positive: np.ndarray, total: np.ndarray
) -> list[dict[str, float]]:
    """Net benefit a row for thresholds of 0.01 to 0.99; arrays (g,) by falling risk."""
    true, called = np.r_[0, np.cumsum(positive)], np.r_[0, np.cumsum(total)]
    # Risks fall: the rows at or above t are those before the first risk that lies below it.
    flagged = np.searchsorted(-score, -THRESHOLDS, side="right")
    rows, price = called[-1], THRESHOLDS / (1 - THRESHOLDS)
    model = (true[flagged] - (called - true)[flagged] * price) / rows
    everybody = (true[-1] - (rows - true[-1]) * price) / rows
    return [
        {"threshold": float(t), "model": float(m), "all": float(a)}
        for t, m, a in zip(THRESHOLDS, model, everybody, strict=True)
    ]
