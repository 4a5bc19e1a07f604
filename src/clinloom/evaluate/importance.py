"""What a model leans on: how much worse it tells patients apart when a feature is shuffled.

Permutation importance (Breiman, Machine Learning 45 (2001) 5; Fisher, Rudin and Dominici, J. Mach.
Learn. Res. 20 (2019) 177): the values of a feature, or of several together, change places among
rows, and the area under the ROC curve falls. Features that tell the same hide one another, so whole
families and codes are shuffled, too. Rows of a patient are drawn together for the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clinloom.evaluate import bootstrap, discrimination
from clinloom.evaluate.bootstrap import ONCE
from clinloom.evaluate.points import defined

REPLICATES = 200
ROWS = 1_000  # shuffled rows, together, from which a feature is shuffled once

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Score = Callable[[Floats], Floats]


class Shuffled:
    """Rows on which columns are shuffled: ``x`` (n, w), ``label`` and ``subject`` (n,).

    ``score`` answers (n,) for rows (n, w).
    """

    def __init__(self, score: Score, x: Floats, label: Flags, subject: Ints, *, seed: int):
        self.score, self.x, self.label, self.seed = score, x, label, seed
        _, number = np.unique(subject, return_inverse=True)
        self.weight = bootstrap.times(number.astype(np.int64), range(REPLICATES + 1), seed=seed)
        self.base = self.areas(score(x))

    def areas(self, risk: Floats) -> Floats:
        """(1 + REPLICATES,) areas under the ROC curve, ties one half; ``ONCE`` first."""
        order = np.argsort(-risk, kind="stable")
        at = np.flatnonzero(np.r_[True, np.diff(risk[order]) != 0])
        weight = self.weight[:, order]
        total = np.add.reduceat(weight, at, axis=1)
        positive = np.add.reduceat(weight * self.label[order], at, axis=1)
        return discrimination.ranked(positive, total)["auroc"]

    def lost(self, columns: Sequence[int] | Ints) -> Floats:
        """(1 + REPLICATES,): how far the area falls when ``columns`` are shuffled together."""
        of = np.asarray(columns, np.int64)
        if not of.size:
            return np.zeros_like(self.base)
        repeats = max(1, min(5, ROWS // max(1, len(self.x))))
        rng = np.random.default_rng([self.seed & 0xFFFFFFFF, int(of[0]), len(of)])
        found = np.zeros_like(self.base)
        for _ in range(repeats):
            moved = self.x.copy()
            moved[:, of] = self.x[rng.permutation(len(self.x))][:, of]
            found += self.base - self.areas(self.score(moved))
        return found / repeats


def sets(features: Sequence[Any]) -> Iterator[tuple[str, str, list[int]]]:
    """What is shuffled: each feature; each family; each code of several features."""
    families: dict[str, list[int]] = {}
    codes: dict[str, list[int]] = {}
    for at, feature in enumerate(features):
        yield "feature", feature.name, [at]
        families.setdefault(feature.family, []).append(at)
        codes.setdefault(feature.code, []).append(at)
    yield from (("family", name, of) for name, of in families.items())
    yield from (("code", name, of) for name, of in codes.items() if len(of) > 1)


def told(
    kinds: Sequence[tuple[str, str]], lost: Mapping[int, Floats], *, most: int, confidence: float
) -> dict[str, list[dict[str, Any]]]:
    """By kind those that matter most, first: name, value, low and high."""
    out: dict[str, list[dict[str, Any]]] = {}
    for at in sorted(lost, key=lambda number: (-lost[number][ONCE], number)):
        kind, name = kinds[at]
        rows = out.setdefault(kind, [])
        if len(rows) < most and lost[at][ONCE] > 0:
            low, high = bootstrap.interval(lost[at][1:, None], confidence)
            numbers = map(defined, (lost[at][ONCE], low[0], high[0]))
            found = dict(zip(("value", "low", "high"), numbers, strict=True))
            rows.append({"name": name, **found})
    return out
