"""Evaluation: how well risks tell patients apart, whether they can be believed, and what they win.

A kernel room: NumPy only. Every number carries an interval from a bootstrap that draws patients,
not rows, because a patient's rows resemble one another. ``evaluate`` does it all for rows in
memory; for rows that workers hold, ``replicated`` does some replicates where the rows are, on the
groups of equal risk of all rows (``learn.risks``), and ``told`` puts the answers together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from clinloom.errors import DataError
from clinloom.evaluate import bootstrap, calibration, discrimination, flexible, points, utility
from clinloom.evaluate.bootstrap import ONCE, Tally
from clinloom.evaluate.points import Asked
from clinloom.evaluate.subgroups import Grouped, Pairs
from clinloom.learn.risks import Risks

__all__ = [
    "FEWEST",
    "METRICS",
    "Judged",
    "Rows",
    "blocks",
    "curves",
    "evaluate",
    "paired",
    "replicated",
    "summed_up",
    "told",
]

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
    "npv",
    "balanced_accuracy",
    "mcc",
    "number_needed",
    "alert_rate",
    "brier_scaled",
    "observed_expected",
    "ici",
    "e50",
    "e90",
)
FEWEST = 5  # rows of either class without which a number says nothing of other patients
MOST_POINTS = 200
BLOCK = 20  # replicates at once where the groups are many
CELLS = 2_000_000  # replicates x groups at once where they are few
NOWHERE = Asked()

Floats = npt.NDArray[np.float64]
Rows = (
    tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Floats]
    | tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Floats, Pairs]
)


@dataclass(frozen=True)
class Judged:
    """A model to be judged: the groups of its risks, its threshold, and what is fitted once.

    ``start``: of the fits of replicates; ``knots``: of the flexible curve; ``whole``: what fits on
    all groups tell, by metric; ``asked``: where else than at its threshold flags are judged;
    ``repeats``: how many times each row was judged.
    """

    risks: Risks
    threshold: float
    start: Floats
    knots: Floats
    whole: Mapping[str, float]
    asked: Asked = NOWHERE
    repeats: int = 1

    @classmethod
    def of(
        cls, risks: Risks, threshold: float, asked: Asked = NOWHERE, *, repeats: int = 1
    ) -> Judged:
        """Of the groups of all rows, each as often as it was judged. Raises DataError where they
        are of one class."""
        if not 0 < risks.positives < risks.rows:
            raise DataError(
                "the rows to judge are of one class only",
                mend="a longer outcome window, wider eligibility or a larger test share gives both",
            )
        once = risks.positive[None].astype(float), risks.total[None].astype(float)
        start = calibration.fit(risks.score, *once)
        knots = flexible.knots_of(risks.score, once[1][0])
        apart = flexible.distances(risks.score, *once, knots)
        whole = {name: float(found[0]) for name, found in apart.items()}
        whole |= {"calibration_slope": start[0, 1], "calibration_intercept": start[0, 2]}
        return cls(risks, threshold, start, knots, whole, asked, repeats)

    @property
    def few(self) -> bool:
        """Whether too few rows have, or have not, the outcome."""
        positives = self.risks.positives // self.repeats
        return min(positives, self.rows - positives) < FEWEST

    @property
    def rows(self) -> int:
        """How many rows, however often each was judged."""
        return self.risks.rows // self.repeats


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
    left out of its interval; no interval is given where fewer than ``FEWEST`` rows have, or have
    not, the outcome. Raises DataError where there is one class only.

    >>> found = evaluate([0, 0, 1, 1], [.1, .6, .4, .9], [1, 2, 3, 4], threshold=.5, replicates=50)
    >>> found["auroc"]["value"]
    0.75
    """
    truth, risk = _checked(label, probability)
    patient = np.asarray(subject)
    if patient.shape != truth.shape:
        raise DataError("label, probability and subject differ in length")
    judged = Judged.of(Risks.of(truth, risk).compact(), threshold)
    rows: Rows = (_numbers(patient), truth, risk[:, None])
    drawn = [
        replicated([rows], [judged], block, seed=seed)[0]
        for block in blocks(replicates, len(judged.risks.score))
    ]
    return told(np.concatenate(drawn), confidence=confidence, few=judged.few)


def blocks(replicates: int, groups: int, *, least: int = 1) -> list[range]:
    """The replicates (``ONCE`` first) in blocks of bounded memory, at least ``least`` of them.

    ``groups``: those of all models together.
    """
    every = replicates + 1
    count = min(every, max(least, -(-every // max(BLOCK, CELLS // max(1, groups)))))
    cuts = [every * at // count for at in range(count + 1)]
    return [range(begin, end) for begin, end in pairwise(cuts)]


def replicated(
    rows: Iterable[Rows],
    judged: Sequence[Judged],
    replicates: Sequence[int],
    *,
    seed: int,
    grouped: Grouped | None = None,
    of: int = 0,
) -> Floats:
    """(models, replicates, numbers) of some replicates, from all rows in any order and chunks.

    ``rows``: chunks of subject (n,), label (n,), risks (n, models) and, where ``grouped`` adds up
    keys by the risks of the model number ``of``, the rows' keys. The numbers: ``METRICS`` and then
    what :func:`summed_up` reads. Holds replicates x groups x 2 numbers a model.
    """
    tallies = [
        Tally(one.risks, len(replicates), thresholds=[one.threshold, *one.asked.thresholds])
        for one in judged
    ]
    step = max(1024, CELLS // len(replicates))
    for subject, label, risk, *keys in rows:
        for begin in range(0, len(label), step):
            at = slice(begin, begin + step)
            weight = bootstrap.times(subject[at], replicates, seed=seed)
            for number, tally in enumerate(tallies):
                tally.add(label[at], risk[at, number], weight)
            if grouped is not None:
                low, high = np.searchsorted(keys[0].row, [begin, begin + step])
                pairs = Pairs(keys[0].row[low:high] - begin, keys[0].key[low:high])
                grouped.add(label[at], risk[at, of], weight, pairs)
    found = [_numbers_of(*pair, replicates) for pair in zip(judged, tallies, strict=True)]
    return np.stack(found)


def _numbers_of(judged: Judged, tally: Tally, replicates: Sequence[int]) -> Floats:
    """(replicates, numbers) of one model."""
    found = tally.measured(start=judged.start, knots=judged.knots)
    score, positive, total = judged.risks.score, tally.positive, tally.total
    metrics = np.stack([found[name] for name in METRICS], axis=1)
    for name, value in judged.whole.items():
        metrics[np.asarray(replicates) == ONCE, METRICS.index(name)] = value
    flags = points.at(judged.asked, score, positive, total, tally.true[:, 1:], tally.called[:, 1:])
    observed = calibration.observed(judged.risks.total, positive, total)
    won = utility.decision(score, positive, total).reshape(len(total), -1)
    return np.concatenate([metrics, flags, observed, won], axis=1)


def summed_up(drawn: Floats, judged: Judged, *, confidence: float) -> dict[str, Any]:
    """All that replicates (1 + b, numbers), ``ONCE`` first, tell of a model.

    ``test``: see :func:`told`; ``points``: flags elsewhere (``points.told``); ``curves``: see
    :func:`curves`, the tenths and net benefit with intervals.
    """
    value, (low, high) = drawn[ONCE], bootstrap.interval(drawn[1:], confidence)
    drawn_curves = curves(risks=judged.risks)
    flags = slice(len(METRICS), len(METRICS) + len(judged.asked.names) * len(points.NUMBERS))
    tenths = slice(flags.stop, flags.stop + calibration.TENTHS)
    present = np.unique(calibration.tenth_of(judged.risks.total))[::-1]
    for number, part in zip(present, drawn_curves["calibration"], strict=True):
        at = tenths.start + number
        if not 0 < part["observed"] < 1:  # every resample says the same: Wilson's stays
            continue
        part |= {"low": points.defined(low[at]), "high": points.defined(high[at])}
    shape = (len(utility.CURVES), len(utility.THRESHOLDS))
    value_of, low_of, high_of = (part[tenths.stop :].reshape(shape) for part in (value, low, high))
    for at, part in enumerate(drawn_curves["net_benefit"]):
        for number, name in enumerate(utility.CURVES):
            part[name] = float(value_of[number, at])
            part[f"{name}_low"] = points.defined(low_of[number, at])
            part[f"{name}_high"] = points.defined(high_of[number, at])
    return {
        "test": told(drawn, confidence=confidence, few=judged.few),
        "points": points.told(judged.asked.names, value[flags], low[flags], high[flags]),
        "curves": drawn_curves,
    }


def paired(one: Floats, other: Floats, *, confidence: float) -> dict[str, dict[str, Any]]:
    """Each metric of one model less that of another, from the same replicates of both.

    What the two share cancels, so that the interval is narrower than those of either.
    """
    apart = (one - other)[:, : len(METRICS)]
    low, high = bootstrap.interval(apart[1:], confidence)
    return {
        name: dict(zip(("value", "low", "high"), map(points.defined, found), strict=True))
        for name, *found in zip(METRICS, apart[ONCE], low, high, strict=True)
    }


def told(
    drawn: Floats, *, confidence: float, few: bool = False
) -> dict[str, dict[str, float | None]]:
    """The metrics with their intervals, from replicates (1 + b, numbers), ``ONCE`` first.

    ``few``: there are too few rows for an interval; resamples of a handful agree with one another.
    """
    value = drawn[ONCE]
    low, high = bootstrap.interval(drawn[1:, : len(METRICS)], confidence)
    if few:
        low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    return {
        name: dict(zip(("value", "low", "high"), map(points.defined, found), strict=True))
        for name, *found in zip(METRICS, value, low, high, strict=False)
    }


def curves(
    label: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    *,
    risks: Risks | None = None,
) -> dict[str, list[Any]]:
    """What a report draws, each of at most 200 points, of rows or of their groups.

    ``roc`` [[false positive rate, true positive rate]], ``pr`` [[recall, precision]],
    ``calibration`` one entry a tenth of the rows by risk (ties stay together) with Wilson's
    interval, ``flexible`` [[predicted, observed]] of the flexible calibration curve,
    ``net_benefit`` by threshold for the model and for flagging everybody. Raises DataError where
    there is one class.
    """
    if risks is None:
        risks = Risks.of(*_checked(label, probability))
    risks = Judged.of(risks, 0.5).risks
    score, positive, total = risks.score, risks.positive.astype(float), risks.total.astype(float)
    return {
        "roc": discrimination.roc(positive, total, most=MOST_POINTS),
        "pr": discrimination.precision_recall(positive, total, most=MOST_POINTS),
        "calibration": calibration.tenths(score, positive, total),
        "flexible": flexible.drawn(score, positive, total),
        "net_benefit": utility.net_benefit(score, positive, total),
    }


def _checked(label: Any, probability: Any) -> tuple[npt.NDArray[np.bool_], Floats]:
    truth, risk = np.asarray(label).astype(bool), np.asarray(probability, float)
    if truth.ndim != 1 or truth.shape != risk.shape:
        raise DataError("label, probability and subject differ in length")
    if not ((risk >= 0) & (risk <= 1)).all():
        raise DataError("a probability is missing or lies outside 0 to 1")
    return truth, risk


def _numbers(subject: np.ndarray) -> npt.NDArray[np.int64]:
    """Patients as whole numbers: themselves, or their place among the sorted identities."""
    if subject.dtype.kind in "iu":
        return subject.astype(np.int64)
    return np.unique(subject, return_inverse=True)[1].astype(np.int64)
