"""Does the model tell patients apart? Areas under curves, and what happens at the threshold.

All weights are (b, g): replicates x groups of equal risk, by falling risk. The area under the ROC
curve counts ties as one half (Hanley and McNeil, Radiology 143 (1982) 29); the area under the
precision-recall curve is the average precision, without interpolation (Davis and Goadrich, 2006).
"""

from __future__ import annotations

import numpy as np


def ranked(positive: np.ndarray, total: np.ndarray) -> dict[str, np.ndarray]:
    """auroc and auprc, (b,) each; NaN where a replicate holds one class."""
    negative = total - positive
    true = np.cumsum(positive, axis=1)
    false = np.cumsum(negative, axis=1)
    events, others = true[:, -1], false[:, -1]
    below = (negative * (true - positive / 2)).sum(axis=1)
    precision = _ratio(true, true + false, empty=0.0)
    return {
        "auroc": np.where(events > 0, _ratio(below, events * others), np.nan),
        "auprc": np.where(others > 0, _ratio((positive * precision).sum(axis=1), events), np.nan),
    }


def at_threshold(
    true: np.ndarray, called: np.ndarray, positive: np.ndarray, total: np.ndarray
) -> dict[str, np.ndarray]:
    """What comes of flags, (b,) each, from sums over rows: see :func:`flagged`.

    ``true`` and ``called`` (b,): the weight of flagged rows with the outcome, and of all flagged.
    """
    return flagged(true, called, positive.sum(axis=1), total.sum(axis=1))


def flagged(
    true: np.ndarray, called: np.ndarray, events: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """What comes of flags, of any shape: ``true`` of the ``called`` rows are among the ``events``.

    number_needed: how many flagged rows are looked at for one with the outcome (1 / precision;
    Romero-Brufau et al., Crit. Care 19 (2015) 285). mcc: Matthews, Biochim. Biophys. Acta 405
    (1975) 442. NaN where a ratio is of nothing.
    """
    rejected = rows - called - (events - true)
    recall, specificity = _ratio(true, events), _ratio(rejected, rows - events)
    # Factor by factor: of many rows the product of four counts is beyond what is exact.
    root = np.sqrt(called) * np.sqrt(events) * np.sqrt(rows - called) * np.sqrt(rows - events)
    return {
        "accuracy": _ratio(true + rejected, rows),
        "precision": _ratio(true, called),
        "recall": recall,
        "specificity": specificity,
        "f1": _ratio(2 * true, called + events),
        "npv": _ratio(rejected, rows - called),
        "balanced_accuracy": (recall + specificity) / 2,
        "mcc": _ratio(true * rows - called * events, root),
        "number_needed": _ratio(called, true),
        "alert_rate": _ratio(called, rows),
    }


def roc(positive: np.ndarray, total: np.ndarray, *, most: int) -> list[list[float]]:
    """[false positive rate, true positive rate] from (0, 0) to (1, 1), evenly along the curve."""
    true = np.r_[0, np.cumsum(positive)]
    false = np.r_[0, np.cumsum(total - positive)]
    x, y = false / false[-1], true / true[-1]
    return _thinned(x, y, x + y, most)


def precision_recall(positive: np.ndarray, total: np.ndarray, *, most: int) -> list[list[float]]:
    """[recall, precision] by rising recall."""
    true, called = np.cumsum(positive), np.cumsum(total)
    return _thinned(true / true[-1], true / called, true / true[-1], most)


def _thinned(x: np.ndarray, y: np.ndarray, along: np.ndarray, most: int) -> list[list[float]]:
    keep = np.arange(len(x))
    if len(x) > most:
        even = np.linspace(along[0], along[-1], most - 1)
        keep = np.unique(np.r_[0, np.searchsorted(along, even), len(x) - 1].clip(0, len(x) - 1))
    return [[round(float(x[at]), 6), round(float(y[at]), 6)] for at in keep[:most]]


def _ratio(above: np.ndarray, below: np.ndarray, *, empty: float = np.nan) -> np.ndarray:
    """above / below, ``empty`` where below is 0."""
    ratio: np.ndarray = np.divide(
        above, below, out=np.full(np.shape(above), empty), where=below > 0
    )
    return ratio
