"""The patient-clustered bootstrap: each patient counts so many times, its rows follow.

How often a patient counts in a replicate is Poisson(1), drawn from a hash of seed, patient and
replicate (Hanley and MacGibbon, Comput. Methods Programs Biomed. 83 (2006) 57; Chamandy et al.,
Estimating uncertainty for massive data streams, Google (2012)). So a draw is the same in any
worker, chunk and order, and a replicate is a sum over rows that each worker adds up for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clinloom import hashing
from clinloom.evaluate import calibration, discrimination, flexible
from clinloom.learn.risks import Risks

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FITTED = 2_048  # groups that curves of replicates are fitted on, at most
ONCE = 0  # the number of the replicate in which every patient counts once: the value itself


def _thresholds() -> hashing.Words:
    """The 64-bit hashes at which a Poisson(1) variable becomes 1, 2, 3, ..."""
    share, total, out = np.exp(-1.0), np.exp(-1.0), []
    for times in range(1, 20):
        out.append(min(int(total * 2.0**64), 2**64 - 1))
        share /= times
        total += share
    return np.array(out, np.uint64)


THRESHOLDS = _thresholds()
TOP = 16  # bits of a hash that say how often, but for the few cells in which a threshold lies
UNSURE = 255


def _table() -> npt.NDArray[np.uint8]:
    """How often, by a hash's first bits; ``UNSURE`` where the others decide."""
    cell = np.uint64(64 - TOP)
    first = np.arange(1 << TOP, dtype=np.uint64) << cell
    last = first + ((np.uint64(1) << cell) - np.uint64(1))
    low, high = (np.searchsorted(THRESHOLDS, edge, side="right") for edge in (first, last))
    return np.where(low == high, low, UNSURE).astype(np.uint8)


TABLE = _table()


def poisson(drawn: hashing.Words) -> npt.NDArray[np.uint8]:
    """Poisson(1) variables (n,) of uniform 64-bit hashes (n,)."""
    count: npt.NDArray[np.uint8] = TABLE[drawn >> np.uint64(64 - TOP)]
    unsure = np.flatnonzero(count == UNSURE)
    if unsure.size:
        count[unsure] = np.searchsorted(THRESHOLDS, drawn[unsure], side="right")
    return count


def times(subject: Ints, replicates: Sequence[int], *, seed: int) -> Floats:
    """(b, n): how often each row's patient counts in each replicate; 1 in replicate ``ONCE``."""
    begins = np.flatnonzero(np.r_[True, subject[1:] != subject[:-1]][: subject.size])
    first = hashing.words(subject[begins], seed=seed)
    spans = np.diff(np.r_[begins, subject.size])
    out = np.empty((len(replicates), subject.size))
    for at, number in enumerate(replicates):
        if number == ONCE:
            out[at] = 1.0
            continue
        drawn = hashing.mixed(first + hashing.words(np.array([number]), seed=~seed))
        count = poisson(drawn)
        out[at] = count if len(count) == subject.size else np.repeat(count, spans)
    return out


class Tally:
    """The sums of some replicates of one model's rows over its groups of equal risk.

    ``risks``: the groups of all rows; ``replicates``: how many; ``thresholds``: the model's own,
    at which its metrics are, and any others.
    """

    def __init__(self, risks: Risks, replicates: int, *, thresholds: Sequence[float]):
        self.risks, self.thresholds = risks, np.asarray(thresholds, float)
        groups = len(risks.score)
        self.positive, self.total = np.zeros((2, replicates, groups))
        self.true, self.called = np.zeros((2, replicates, len(self.thresholds)))
        self.loss = np.zeros(replicates)

    def add(self, label: npt.NDArray[np.bool_], risk: Floats, weight: Floats) -> None:
        """Rows (n,) with their weights (b, n)."""
        group, groups = self.risks.number(risk), len(self.risks.score)
        flagged = risk[:, None] >= self.thresholds
        both = weight @ np.concatenate([flagged, flagged & label[:, None]], axis=1).astype(float)
        self.called += both[:, : len(self.thresholds)]
        self.true += both[:, len(self.thresholds) :]
        if not self.risks.exact:
            self.loss += weight @ (risk - label) ** 2
        events = np.flatnonzero(label)
        happened = group[events]
        for at, row in enumerate(weight):
            self.total[at] += np.bincount(group, row, groups)
            self.positive[at] += np.bincount(happened, row[events], groups)

    def measured(
        self, *, start: Floats | None = None, knots: Floats | None = None
    ) -> dict[str, Floats]:
        """Every metric, (b,) each; ``start``: see ``calibration.fit``, ``knots``: ``flexible``'s.

        Where there are more than ``FITTED`` groups, curves are fitted on as many cells of them.
        """
        score, positive, total = self.risks.score, self.positive, self.total
        once = self.risks.total.astype(float)
        cells = calibration.joined(score, once, calibration.cells(once, FITTED), positive, total)
        believable = calibration.believable(*cells, start=start)
        if self.risks.exact:
            believable["brier"] = calibration.brier(score, positive, total)
        else:
            rows = total.sum(axis=1)
            believable["brier"] = np.where(rows > 0, self.loss / np.maximum(rows, 1), np.nan)
        believable["brier_scaled"] = calibration.scaled(believable["brier"], positive, total)
        knots = flexible.knots_of(score, once) if knots is None else knots
        return {
            **discrimination.ranked(positive, total),
            **discrimination.at_threshold(self.true[:, 0], self.called[:, 0], positive, total),
            **believable,
            **flexible.distances(cells[0], cells[1], cells[2], knots),
        }


def interval(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Percentile limits of each column of (replicates, metrics); NaN where nothing is defined."""
    tail = (1 - confidence) / 2
    out = np.full((2, drawn.shape[1]), np.nan)
    for at, column in enumerate(drawn.T):
        defined = column[np.isfinite(column)]
        if defined.size:
            out[:, at] = np.quantile(defined, [tail, 1 - tail])
    return out[0], out[1]
