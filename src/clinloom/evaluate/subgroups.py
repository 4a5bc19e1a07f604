"""Subgroups and months: how the model does in each, and against the rest, on the same replicates.

A subgroup's rows, and all others, are added up by groups of equal risk in every replicate, so that
a difference has an interval of its own. Fairness figures compare a subgroup with the rest: equal
opportunity is the difference of sensitivities (Hardt, Price and Srebro, NeurIPS 2016), predictive
parity that of precisions (Chouldechova, Big Data 5 (2017) 153), the alert rate ratio the disparate
impact of Feldman et al. (KDD 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clinloom.evaluate import bootstrap, calibration, discrimination
from clinloom.evaluate.bootstrap import ONCE
from clinloom.evaluate.points import defined
from clinloom.learn.risks import Risks

AGES = (0, 18, 45, 65, 80, np.inf)
MOST_GROUPS = 62  # what a row's memberships are kept in is a whole number of 64 bits
KINDS = {
    "GENDER": "sex",
    "SITE": "site",
    "ETHNICITY": "ethnicity",
    "RACE": "ethnicity",
    "SCANNER": "scanner",
    "MANUFACTURER": "scanner",
}
WATCHED = ("sex", "age", "site")  # of a model at work
EVERY = (*WATCHED, "ethnicity", "scanner")
NUMBERS = (
    "auroc",
    "brier",
    "recall",
    "specificity",
    "precision",
    "npv",
    "alert_rate",
    "prevalence",
    "calibration_slope",
    "calibration_intercept",
    "observed_expected",
)
FAIRNESS = {  # of a subgroup against the rest
    "equal_opportunity_difference": "recall",
    "predictive_parity_difference": "precision",
    "alert_rate_ratio": "alert_rate",
}
CELLS = 512  # cells of equal risk that replicates of subgroups are added up over
FITTED = 128  # and those that their calibration is fitted on

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Named(Protocol):
    """A feature, as far as it tells of a subgroup."""

    @property
    def code(self) -> str:
        """What it is about."""

    @property
    def statistic(self) -> str:
        """How it sums that up."""


class Group(NamedTuple):
    """Rows whose feature number ``at`` lies in [low, high); ``kind``: sex, age, site or so."""

    kind: str
    name: str
    at: int
    low: float
    high: float


def subgroups(
    features: Sequence[Named], patterns: Sequence[str] = (), kinds: Sequence[str] = WATCHED
) -> list[Group]:
    """The subgroups of some ``kinds`` that a model's features tell, and those of rows that have a
    code which one of ``patterns`` fits."""
    out: dict[str, Group] = {}
    wanted = set(kinds)
    some = np.nextafter(0.0, 1.0)
    for at, feature in enumerate(features):
        room, _, value = feature.code.partition("//")
        kind = KINDS.get(room)
        if feature.statistic == "age" and "age" in wanted:
            for low, high in zip(AGES, AGES[1:], strict=False):
                name = f"age {low:g} to {high - 1:g}" if np.isfinite(high) else f"age {low:g} on"
                out.setdefault(name, Group("age", name, at, low, high))
        elif kind in wanted:
            name = f"{kind} {value}"
            out.setdefault(name, Group(str(kind), name, at, some, np.inf))
        elif feature.statistic in ("present", "count") and any(
            fnmatchcase(feature.code, pattern) for pattern in patterns
        ):
            name = f"code {feature.code}"
            out.setdefault(name, Group("code", name, at, some, np.inf))
    return list(out.values())[:MOST_GROUPS]


def unfound(groups: Sequence[Group], patterns: Sequence[str]) -> list[str]:
    """The patterns that no feature's code fits."""
    codes = [group.name.removeprefix("code ") for group in groups]
    return [one for one in patterns if not any(fnmatchcase(code, one) for code in codes)]


def members(values: Floats, groups: Sequence[Group]) -> Flags:
    """Which rows (n, f) are of which subgroup: (n, g)."""
    out = np.zeros((len(values), len(groups)), bool)
    for number, group in enumerate(groups):
        value = values[:, group.at]
        out[:, number] = (value >= group.low) & (value < group.high)
    return out


def bits(member: Flags) -> Ints:
    """Memberships (n, g) as a bit each (n,)."""
    found: Ints = member.astype(np.int64) @ (np.int64(1) << np.arange(member.shape[1]))
    return found


def unpacked(bits: Ints, groups: int) -> Flags:
    """The inverse of :func:`bits`: (n, g)."""
    return (bits[:, None] >> np.arange(groups)) & 1 > 0


@dataclass(frozen=True)
class Cut:
    """The model's risks in cells, of which none lies on both sides of its threshold.

    ``starts``: the first group of each cell; ``score`` and ``once`` (cells,): the mean risk, and
    how many rows; ``flagged``: how many cells lie at or above the threshold.
    """

    risks: Risks
    starts: Ints
    score: Floats
    once: Floats
    flagged: int

    @classmethod
    def of(cls, risks: Risks, threshold: float, most: int = CELLS) -> Cut:
        """Of the groups of all rows."""
        once = risks.total.astype(float)
        edge = int((risks.score >= threshold).sum())
        starts = np.unique(np.r_[calibration.cells(once, most), min(edge, len(once) - 1)])
        (score,) = calibration.joined(risks.score, once, starts)
        flagged = len(starts) if edge == len(once) else int(np.searchsorted(starts, edge))
        return cls(risks, starts, score, np.add.reduceat(once, starts), flagged)

    def cell(self, risk: Floats) -> Ints:
        """The cell (n,) of each risk (n,)."""
        group = self.risks.number(risk)
        return np.asarray(np.searchsorted(self.starts, group, side="right") - 1, np.int64)


class Pairs(NamedTuple):
    """Which rows are of which key: ``row`` and ``key`` (m,) each, a row as often as it has one."""

    row: Ints
    key: Ints


class Grouped:
    """The sums of some replicates of the rows of each of ``keys`` keys, and of all, over cells."""

    def __init__(self, cut: Cut, keys: int, replicates: int):
        self.cut, self.keys = cut, keys
        shape = (replicates, keys + 1, len(cut.score))
        self.positive, self.total = np.zeros(shape), np.zeros(shape)

    def add(self, label: Flags, risk: Floats, weight: Floats, pairs: Pairs) -> None:
        """Rows (n,) with their weights (b, n)."""
        cells, count = len(self.cut.score), len(label)
        cell = self.cut.cell(risk)
        row = np.r_[pairs.row, np.arange(count)]
        at = np.r_[pairs.key, np.full(count, self.keys)] * cells + cell[row]
        having = label[row]
        happened, which = at[having], row[having]
        size = (self.keys + 1) * cells
        for number, times in enumerate(weight):
            total = np.bincount(at, times[row], size)
            positive = np.bincount(happened, times[which], size)
            self.total[number] += total.reshape(-1, cells)
            self.positive[number] += positive.reshape(-1, cells)

    def measured(self) -> Floats:
        """(b, keys, 2, NUMBERS): of each key's rows, and of all others."""
        replicates, cut = len(self.total), self.cut
        fits = calibration.cells(cut.once, FITTED)
        out = np.empty((replicates, self.keys, 2, len(NUMBERS)))
        for key in range(self.keys):
            mine = self.positive[:, key], self.total[:, key]
            rest = self.positive[:, -1] - mine[0], self.total[:, -1] - mine[1]
            for side, part in enumerate((mine, rest)):
                cells = calibration.joined(cut.score, cut.once, fits, *part)
                out[:, key, side] = numbers(cut.score, *part, cut.flagged, cells)
        return out


def numbers(
    score: Floats,
    positive: Floats,
    total: Floats,
    flagged: int,
    cells: tuple[Floats, ...] = (),
) -> Floats:
    """(b, NUMBERS) of weights (b, g) by falling ``score`` (g,), the first ``flagged`` flagged.

    ``cells``: the same three of fewer groups, on which calibration is fitted; none: on these.
    """
    found = discrimination.ranked(positive, total)
    called, true = (w[:, :flagged].sum(axis=1) for w in (total, positive))
    found |= discrimination.at_threshold(true, called, positive, total)
    fitted = calibration.fit(*(cells or (score, positive, total)))
    found["calibration_slope"], found["calibration_intercept"] = fitted[:, 1], fitted[:, 2]
    found["brier"] = calibration.brier(score, positive, total)
    found["observed_expected"] = calibration.observed_expected(score, positive, total)
    rows = total.sum(axis=1)
    share = np.divide(positive.sum(axis=1), rows, out=np.full(len(rows), np.nan), where=rows > 0)
    found["prevalence"] = share
    return np.stack([found[name] for name in NUMBERS], axis=1)


def exactly(all_: Risks, mine: Risks, threshold: float) -> Floats | None:
    """(2, NUMBERS) of a key's rows and of all others, on groups of equal risk.

    None where these are no longer exact: then the cells must do.
    """
    if not (all_.exact and mine.exact):
        return None
    at = np.searchsorted(-all_.score, -mine.score)
    flagged = int((all_.score >= threshold).sum())
    parts = []
    for name in ("positive", "total"):
        one = np.zeros(len(all_.score))
        one[at] = getattr(mine, name)
        parts.append(np.stack([one, getattr(all_, name) - one]))
    return numbers(all_.score, parts[0], parts[1], flagged)


def told(drawn: Floats, value: Floats | None, *, confidence: float) -> dict[str, Any]:
    """What replicates (1 + b, 2, NUMBERS), ``ONCE`` first, tell of a subgroup.

    ``metrics`` of its rows, their ``difference`` to the rest, and ``fairness``; ``value``: see
    :func:`exactly`.
    """
    drawn = drawn.copy()
    if value is not None:
        drawn[ONCE] = value
    one, rest = drawn[:, 0], drawn[:, 1]
    apart = one - rest
    ratio = np.divide(one, rest, out=np.full_like(one, np.nan), where=rest > 0)
    fairness = np.stack(
        [
            (ratio if name.endswith("ratio") else apart)[:, NUMBERS.index(of)]
            for name, of in FAIRNESS.items()
        ],
        axis=1,
    )
    return {
        "metrics": _intervals(one, NUMBERS, confidence),
        "difference": _intervals(apart, NUMBERS, confidence),
        "fairness": _intervals(fairness, tuple(FAIRNESS), confidence),
    }


def _intervals(drawn: Floats, names: Sequence[str], confidence: float) -> dict[str, Any]:
    low, high = bootstrap.interval(drawn[1:], confidence)
    return {
        name: {"value": defined(v), "low": defined(lo), "high": defined(hi)}
        for name, v, lo, hi in zip(names, drawn[ONCE], low, high, strict=True)
    }
