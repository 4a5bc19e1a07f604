"""Groups of equal risk: what every metric needs of labelled risks, mergeable and bounded.

Rows of equal risk are one group with its outcomes counted, which loses nothing. Beyond ``MOST``
distinct risks neighbours are merged, finely at the top, where average precision looks, and by mass
elsewhere, where the area under the ROC curve looks. A merged group keeps the range it covers, so
the largest error that the area can have is known from the groups themselves (:meth:`Risks.bound`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MOST = 65_536  # groups that are kept; so many distinct risks are exact
TOP = 1000.0  # ranks from the top above which a group holds no more than a row or so
WIDE = 8.0  # cells that a group's range may cover before it is kept apart

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCHEMA = pa.schema(
    [
        pa.field("score", pa.float64(), False),
        pa.field("positive", pa.int64(), False),
        pa.field("total", pa.int64(), False),
        pa.field("low", pa.float64(), False),
        pa.field("high", pa.float64(), False),
    ]
)


@dataclass(frozen=True)
class Risks:
    """Rows as groups by falling ``score`` (g,), the mean risk of a group's rows.

    ``positive`` and ``total`` (g,): rows with the outcome, and all; ``low`` and ``high`` (g,): the
    least and the greatest risk in the group, equal where it holds one distinct risk.
    """

    score: Floats
    positive: Ints
    total: Ints
    low: Floats
    high: Floats

    @classmethod
    def of(cls, label: npt.ArrayLike, risk: npt.ArrayLike) -> Risks:
        """Of rows in any order: ``label`` (n,) true where the outcome came, ``risk`` (n,)."""
        p = np.asarray(risk, np.float64)
        ones = np.ones(p.size, np.int64)
        return _grouped(p, np.asarray(label).astype(np.int64), ones, p, p)

    @classmethod
    def none(cls) -> Risks:
        """Of no row."""
        return cls.of(np.zeros(0), np.zeros(0))

    @classmethod
    def merge(cls, parts: Iterable[Risks]) -> Risks:
        """Of the rows of all parts, in any order and grouping."""
        held = list(parts)
        if not held:
            return cls.none()
        names = SCHEMA.names
        return _grouped(*(np.concatenate([getattr(part, name) for part in held]) for name in names))

    @property
    def exact(self) -> bool:
        """Whether every group holds one distinct risk."""
        return bool((self.low == self.high).all())

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.total.sum())

    @property
    def positives(self) -> int:
        """How many rows with the outcome."""
        return int(self.positive.sum())

    def mapped(self, rising: Callable[[Floats], Floats]) -> Risks:
        """The groups with other risks, by a function that keeps their order."""
        score, low, high = rising(self.score), rising(self.low), rising(self.high)
        return _grouped(np.clip(score, low, high), self.positive, self.total, low, high)

    def compact(self, most: int = MOST) -> Risks:
        """At most ``most`` groups: itself where it has no more, else neighbours merged."""
        if len(self.score) <= most:
            return self
        cells, wide = float(most), WIDE
        while len(starts := self._starts(cells, wide)) > most:
            cells, wide = 0.8 * cells, 2 * wide
        total = np.add.reduceat(self.total, starts)
        low, high = np.minimum.reduceat(self.low, starts), np.maximum.reduceat(self.high, starts)
        mean = np.add.reduceat(self.score * self.total, starts) / total
        score = np.where(low == high, low, np.clip(mean, low, high))
        positive = np.add.reduceat(self.positive, starts)
        return _grouped(score, positive, total, low, high)

    def _starts(self, cells: float, wide: float) -> Ints:
        """Where the merged groups begin: cells worth the same share of the ranks (two thirds) and
        of their logarithm (one third). A group that is worth a cell stays alone; so does one whose
        range covers many, which would make its neighbours as wide."""
        edge = np.r_[0.0, np.cumsum(self.total)]
        rows = edge[-1]
        place = (2 * edge / rows + np.log1p(edge / TOP) / np.log1p(rows / TOP)) * (cells / 3)
        cell = np.floor((place[1:] + place[:-1]) / 2)
        first = np.searchsorted(-self.score, -self.high, side="left")
        last = np.searchsorted(-self.score, -self.low, side="right")
        alone = (np.diff(place) >= 1) | (place[last] - place[first] > wide)
        begins = (cell[1:] != cell[:-1]) | alone[1:] | alone[:-1]
        return np.flatnonzero(np.r_[True, begins])

    def auroc(self) -> float:
        """The area under the ROC curve, ties one half (Hanley and McNeil, 1982); NaN of one class.

        Exact where the groups are, else within :meth:`bound`.
        """
        events, others = self.positives, self.rows - self.positives
        if not events or not others:
            return float("nan")
        above = np.cumsum(self.positive) - self.positive / 2
        wins = float(((self.total - self.positive) * above).sum())
        return wins / (float(events) * others)

    def bound(self) -> float:
        """The most by which the area under the ROC curve of the rows may differ from the groups'.

        A pair in one merged group counts as a half and may be 0 or 1; a pair in two groups whose
        ranges overlap may be the other way round.
        """
        events, others = self.positives, self.rows - self.positives
        if not events or not others or self.exact:
            return 0.0
        negative = self.total - self.positive
        inside = np.where(self.low < self.high, self.positive.astype(float) * negative, 0.0)
        by_low, by_high = np.argsort(self.low), np.argsort(self.high)
        below = np.r_[0, np.cumsum(negative[by_high])]
        upto = np.r_[0, np.cumsum(negative[by_low])]
        # Those that begin at or below this group's end, less those that end before its beginning.
        begun = upto[np.searchsorted(self.low[by_low], self.high, side="right")]
        ended = below[np.searchsorted(self.high[by_high], self.low, side="left")]
        other = self.positive.astype(float) * (begun - ended - negative)
        return float(other.sum() + inside.sum() / 2) / (float(events) * others)

    def number(self, risk: Floats) -> Ints:
        """The group (n,) of each risk (n,): the one that holds it, else the nearest in rank."""
        middle = (self.score[1:] + self.score[:-1]) / 2
        edges = np.where(self.low[:-1] > self.high[1:], self.high[1:], middle)
        return (len(edges) - np.searchsorted(edges[::-1], risk, side="left")).astype(np.int64)

    def table(self) -> pa.Table:
        """As a small Arrow table, a row a group."""
        return pa.table([pa.array(getattr(self, n)) for n in SCHEMA.names], schema=SCHEMA)

    @classmethod
    def read(cls, table: pa.Table) -> Risks:
        """The inverse of :meth:`table`."""
        return cls(*(table.column(name).to_numpy() for name in SCHEMA.names))


def _grouped(score: Floats, positive: Ints, total: Ints, low: Floats, high: Floats) -> Risks:
    """Groups by falling score; those that hold the same one risk become one."""
    order = np.lexsort((low, high, -score)) if (low != high).any() else np.argsort(-score)
    score, low, high = score[order], low[order], high[order]
    positive, total = positive[order].astype(np.int64), total[order].astype(np.int64)
    if score.size:
        differs = (score[1:] != score[:-1]) | (low[1:] != low[:-1]) | (high[1:] != high[:-1])
        starts = np.flatnonzero(np.r_[True, differs])
        positive, total = np.add.reduceat(positive, starts), np.add.reduceat(total, starts)
        score, low, high = score[starts], low[starts], high[starts]
    return Risks(score, positive, total, low, high)


def merged(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of risks as one: how workers merge their partial sums."""
    return Risks.merge(Risks.read(table) for table in tables).compact().table()
