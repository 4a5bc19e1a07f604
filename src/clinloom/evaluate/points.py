"""Other places to flag from: thresholds, a share of the rows that may be flagged, a sensitivity.

A risk from which on at most so many rows are flagged, or at least so many outcomes found, is a
quantile of the rows, so each replicate has its own; rows of equal risk are flagged together or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clinloom.evaluate import discrimination, utility

Floats = npt.NDArray[np.float64]

NUMBERS = (
    "threshold",
    "alert_rate",
    "recall",
    "specificity",
    "precision",
    "npv",
    "f1",
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "number_needed",
    "net_benefit",
)


@dataclass(frozen=True)
class Asked:
    """Where flags are judged besides the model's own threshold."""

    thresholds: tuple[float, ...] = ()
    alert_rates: tuple[float, ...] = ()
    sensitivities: tuple[float, ...] = ()

    @property
    def names(self) -> list[tuple[str, float]]:
        """What is held fixed, and at what, a point each."""
        return [
            *(("threshold", at) for at in self.thresholds),
            *(("alert_rate", at) for at in self.alert_rates),
            *(("sensitivity", at) for at in self.sensitivities),
        ]


def at(
    asked: Asked, score: Floats, positive: Floats, total: Floats, true: Floats, called: Floats
) -> Floats:
    """(b, points x NUMBERS) of replicates: ``score`` (g,) by falling risk, weights (b, g).

    ``true`` and ``called`` (b, thresholds): what is flagged at each of ``asked.thresholds``.
    """
    found = [
        _numbers(np.full(len(total), t), true[:, n], called[:, n], positive, total)
        for n, t in enumerate(asked.thresholds)
    ]
    if asked.alert_rates or asked.sensitivities:
        trues, calls = np.cumsum(positive, axis=1), np.cumsum(total, axis=1)
        near = 1e-9 * calls[:, -1]  # a share of rows is seldom a whole number that binary holds
        for rate in asked.alert_rates:
            count = (calls <= (rate * calls[:, -1] + near)[:, None]).sum(axis=1)
            found.append(_from(count, score, trues, calls, positive, total))
        for share in asked.sensitivities:
            count = 1 + (trues < (share * trues[:, -1] - near)[:, None]).sum(axis=1)
            found.append(_from(count, score, trues, calls, positive, total))
    return np.concatenate(found, axis=1) if found else np.zeros((len(total), 0))


def told(names: Sequence[tuple[str, float]], values: Floats, low: Floats, high: Floats) -> Any:
    """A record a point: what is fixed, and every number with its interval."""
    width, out = len(NUMBERS), []
    for n, (kind, fixed) in enumerate(names):
        parts = (part[n * width : (n + 1) * width] for part in (values, low, high))
        rows = zip(NUMBERS, *parts, strict=True)
        numbers = {
            name: {"value": defined(v), "low": defined(lo), "high": defined(hi)}
            for name, v, lo, hi in rows
        }
        out.append({"fixed": kind, "at": fixed, **numbers})
    return out


def defined(number: float) -> float | None:
    """A number, or None where it is none."""
    return float(number) if np.isfinite(number) else None


def _from(
    count: npt.NDArray[np.int64],
    score: Floats,
    trues: Floats,
    calls: Floats,
    positive: Floats,
    total: Floats,
) -> Floats:
    """The numbers where the first ``count`` (b,) groups are flagged."""
    row, last = np.arange(len(count)), np.clip(count - 1, 0, len(score) - 1)
    some = count > 0
    risk = np.where(some, score[last], np.nan)  # nobody may be flagged: there is no threshold
    true, called = (np.where(some, upto[row, last], 0.0) for upto in (trues, calls))
    return _numbers(risk, true, called, positive, total)


def _numbers(
    threshold: Floats, true: Floats, called: Floats, positive: Floats, total: Floats
) -> Floats:
    found = discrimination.at_threshold(true, called, positive, total)
    found["threshold"] = threshold
    found["net_benefit"] = utility.won(true, called, total.sum(axis=1), threshold)
    return np.stack([found[name] for name in NUMBERS], axis=1)
