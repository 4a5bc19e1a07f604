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
from clinloom.evaluate import calibration, discrimination
from clinloom.learn.risks import Risks

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

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
        count = np.searchsorted(THRESHOLDS, drawn, side="right").astype(np.float64)
        out[at] = count if len(count) == subject.size else np.repeat(count, spans)
    return out


class Tally:
    """The sums of some replicates of one model's rows over its groups of equal risk.

    ``risks``: the groups of all rows; ``replicates``: the numbers of the replicates.
    """

    def __init__(self, risks: Risks, replicates: int, *, threshold: float):
        self.risks, self.threshold = risks, threshold
        groups = len(risks.score)
        self.positive, self.total = np.zeros((2, replicates, groups))
        self.true, self.called, self.loss = np.zeros((3, replicates))

    def add(self, label: npt.NDArray[np.bool_], risk: Floats, weight: Floats) -> None:
        """Rows (n,) with their weights (b, n)."""
        group, groups = self.risks.number(risk), len(self.risks.score)
        flagged = risk >= self.threshold
        self.called += weight @ flagged
        self.true += weight @ (flagged & label)
        if not self.risks.exact:
            self.loss += weight @ (risk - label) ** 2
        events = np.flatnonzero(label)
        for at, row in enumerate(weight):
            self.total[at] += np.bincount(group, row, groups)
            self.positive[at] += np.bincount(group[events], row[events], groups)

    def measured(self, *, start: Floats | None) -> dict[str, Floats]:
        """Every metric, (b,) each; ``start``: see ``calibration.fit``."""
        score, positive, total = self.risks.score, self.positive, self.total
        believable = calibration.believable(score, positive, total, start=start)
        if not self.risks.exact:
            rows = total.sum(axis=1)
            believable["brier"] = np.where(rows > 0, self.loss / np.maximum(rows, 1), np.nan)
        return {
            **discrimination.ranked(positive, total),
            **discrimination.at_threshold(self.true, self.called, positive, total),
            **believable,
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
