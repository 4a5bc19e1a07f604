"""What is won by acting on the model: net benefit.

net benefit(t) = TP/n - FP/n · t/(1 - t): a threshold t says that one missed outcome weighs as
much as (1 - t)/t false alarms (Vickers and Elkin, Med. Decis. Making 26 (2006) 565).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

THRESHOLDS = np.arange(1, 100) / 100
CURVES = ("model", "all", "gain")

Floats = npt.NDArray[np.float64]


def net_benefit(
    score: np.ndarray, positive: np.ndarray, total: np.ndarray
) -> list[dict[str, float]]:
    """Net benefit a row for thresholds of 0.01 to 0.99; arrays (g,) by falling risk."""
    model, everybody, _ = decision(score, positive[None], total[None])[0]
    return [
        {"threshold": float(t), "model": float(m), "all": float(a)}
        for t, m, a in zip(THRESHOLDS, model, everybody, strict=True)
    ]


def decision(score: Floats, positive: Floats, total: Floats) -> Floats:
    """(b, CURVES, 99) net benefit of the model, of treating all, and what the model adds to the
    better of treating all and treating none; weights (b, g)."""
    edge = np.zeros((len(total), 1))
    true = np.concatenate([edge, np.cumsum(positive, axis=1)], axis=1)
    called = np.concatenate([edge, np.cumsum(total, axis=1)], axis=1)
    # Risks fall: the rows at or above t are those before the first risk that lies below it.
    flagged = np.searchsorted(-score, -THRESHOLDS, side="right")
    rows = called[:, -1:]
    model = won(true[:, flagged], called[:, flagged], rows, THRESHOLDS)
    everybody = won(true[:, -1:], rows, rows, THRESHOLDS)
    return np.stack([model, everybody, model - np.maximum(everybody, 0.0)], axis=1)


def won(true: Floats, called: Floats, rows: Floats, threshold: Floats) -> Floats:
    """Net benefit a row where ``true`` of the ``called`` rows have the outcome."""
    price = threshold / np.where(threshold < 1, 1 - threshold, np.nan)
    out: Floats = np.divide(
        true - (called - true) * price,
        rows,
        out=np.full(np.broadcast_shapes(true.shape, price.shape), np.nan),
        where=rows > 0,
    )
    return out
