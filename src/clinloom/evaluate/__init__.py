"""Evaluation: how well risks tell patients apart, whether they can be believed, and what they win.

A kernel room: NumPy only. Every number carries an interval from a bootstrap that draws patients,
not rows, because a patient's rows resemble one another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from clinloom.errors import DataError
from clinloom.evaluate import bootstrap, calibration, discrimination, utility
from clinloom.evaluate.bootstrap import Sample

__all__ = ["METRICS", "curves", "evaluate"]

METRICS = (
    "auroc",
    "auprc",
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "brier",
    "calibration_slope",
    "calibration_intercept",
)
MOST_POINTS = 200


def evaluate(
    label: ArrayLike,
    probability: ArrayLike,
    subject: ArrayLike,
    *,
    threshold: float,
    replicates: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Every metric of ``METRICS`` with its percentile interval.

    ``label`` (n,) bool, ``probability`` (n,) in 0..1, ``subject`` (n,) the patient of each row; a
    row is flagged where its probability is at or above ``threshold``. Answers
    ``{metric: {"value", "low", "high"}}``; None where a number is undefined (precision when nothing
    is flagged, a slope when the classes separate). Replicates in which a metric is undefined are
    left out of its interval. Raises DataError where there is one class only.

    >>> found = evaluate([0, 0, 1, 1], [.1, .6, .4, .9], [1, 2, 3, 4], threshold=.5, replicates=50)
    >>> found["auroc"]["value"]
    0.75
    """
    sample = _sample(label, probability, subject)
    once = np.ones((1, sample.subjects))
    start = calibration.fit(*sample.weigh(once))

    def measure(times: np.ndarray) -> np.ndarray:
        score, positive, total = sample.weigh(times)
        found = {
            **discrimination.ranked(positive, total),
            **discrimination.at_threshold(score >= threshold, positive, total),
            **calibration.believable(score, positive, total, start=start),
        }
        return np.stack([found[name] for name in METRICS], axis=1)

    value = measure(once)[0]
    drawn = [measure(times) for times in bootstrap.draws(sample, replicates, seed=seed)]
    low, high = bootstrap.interval(np.concatenate([value[None][:0], *drawn]), confidence)
    return {
        name: {"value": _defined(value[at]), "low": _defined(low[at]), "high": _defined(high[at])}
        for at, name in enumerate(METRICS)
    }


def curves(label: ArrayLike, probability: ArrayLike) -> dict[str, list[Any]]:
    """What a report draws, each of at most 200 points.

    ``roc`` [[false positive rate, true positive rate]], ``pr`` [[recall, precision]],
    ``calibration`` one entry a tenth of the rows by risk (ties stay together) with Wilson's
    interval, ``net_benefit`` by threshold for the model and for flagging everybody. Raises
    DataError where there is one class.
    """
    sample = _sample(label, probability, None)
    score, positive, total = (part.reshape(-1) for part in sample.weigh(np.ones((1, 1))))
    return {
        "roc": discrimination.roc(positive, total, most=MOST_POINTS),
        "pr": discrimination.precision_recall(positive, total, most=MOST_POINTS),
        "calibration": calibration.tenths(score, positive, total),
        "net_benefit": utility.net_benefit(score, positive, total),
    }


def _sample(label: ArrayLike, probability: ArrayLike, subject: ArrayLike | None) -> Sample:
    truth, risk = np.asarray(label).astype(bool), np.asarray(probability, float)
    patient = np.zeros(truth.size, int) if subject is None else np.asarray(subject)
    if truth.ndim != 1 or truth.shape != risk.shape or truth.shape != patient.shape:
        raise DataError("label, probability and subject differ in length")
    if not ((risk >= 0) & (risk <= 1)).all():
        raise DataError("a probability is missing or lies outside 0 to 1")
    if truth.all() or not truth.any():
        raise DataError(
            "the rows to judge are of one class only",
            mend="a longer outcome window, wider eligibility or a larger test share gives both",
        )
    return Sample.of(truth, risk, patient)


def _defined(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
