"""The patient-clustered bootstrap: patients are drawn with replacement, their rows follow.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; for clusters, Field and
Welsh, J. R. Stat. Soc. B 69 (2007) 369. Rows are sorted once; a replicate is only a weight a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CELLS = 2_000_000  # numbers of one block's matrix: 16 MB


@dataclass(frozen=True)
class Sample:
    """Rows by falling risk; rows of equal risk form one group.

    ``score`` (g,) the risk of each group, ``starts`` (g,) its first row, ``positive`` (n,) 0 or 1,
    ``patient`` (n,) a number below ``subjects``.
    """

    score: np.ndarray
    starts: np.ndarray
    positive: np.ndarray
    patient: np.ndarray
    subjects: int

    @classmethod
    def of(cls, label: np.ndarray, probability: np.ndarray, subject: np.ndarray) -> Sample:
        """From rows in any order; all arrays (n,)."""
        order = np.argsort(-probability, kind="stable")
        score = probability[order]
        starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
        # Numbered by their identity: the order of rows then changes no draw.
        known, patient = np.unique(subject, return_inverse=True)
        return cls(score[starts], starts, label[order].astype(float), patient[order], len(known))

    def weigh(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(score (g,), positive weight (b, g), total weight (b, g)) where patient s of replicate r
        was drawn ``times[r, s]`` times."""
        total = times[:, self.patient].astype(float)
        positive = total * self.positive
        if len(self.starts) < len(self.positive):
            total = np.add.reduceat(total, self.starts, axis=1)
            positive = np.add.reduceat(positive, self.starts, axis=1)
        return self.score, positive, total


def draws(sample: Sample, replicates: int, *, seed: int) -> Iterator[np.ndarray]:
    """Blocks (b, subjects) of how often each patient was drawn, ``replicates`` rows in all."""
    generator = np.random.default_rng(seed)
    size, block = sample.subjects, max(1, CELLS // len(sample.positive))
    for first in range(0, replicates, block):
        count = min(block, replicates - first)
        drawn = generator.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)


def interval(drawn: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile limits of each column of (replicates, metrics); NaN where nothing is defined."""
    tail = (1 - confidence) / 2
    out = np.full((2, drawn.shape[1]), np.nan)
    for at, column in enumerate(drawn.T):
        defined = column[np.isfinite(column)]
        if defined.size:
            out[:, at] = np.quantile(defined, [tail, 1 - tail])
    return out[0], out[1]
