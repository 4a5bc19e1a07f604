"""The test rows by subgroup and month: what a pass counts of them, and what may be told.

A key is a subgroup's number, or ``MONTHS`` and the month of the prediction since January 1970;
patients are counted by quarter and year, too, since one may be in several months.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.evaluate import FEWEST, subgroups
from clinloom.evaluate.subgroups import EVERY, Cut, Group, Pairs
from clinloom.features import Feature
from clinloom.learn.risks import Risks
from clinloom.report import disclosure
from clinloom.study.schema import Evaluate

MONTHS = 1 << 32
PERIODS = {1: MONTHS, 3: 1 << 33, 12: 1 << 34}  # the keys of months, quarters and years
MOST_PERIODS = 36  # that are told of
GROUPS = 4_096  # groups of equal risk of a key that are kept
PATIENTS = ("having", "lacking")
FLAGS = ("alert_rate", "precision", "npv", "recall", "specificity")  # what tells who is flagged

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def groups_of(features: Sequence[Feature], asked: Evaluate) -> list[Group]:
    """The subgroups of a study."""
    return subgroups.subgroups(features, asked.subgroups, EVERY)


def month(moments: pa.ChunkedArray) -> Ints:
    """The calendar month (n,) of each moment, since January 1970."""
    return np.asarray(moments.to_numpy().astype("datetime64[M]").astype(np.int64))


def sums(subject: Ints, label: Flags, risk: Floats, member: Flags, when: Ints) -> dict[str, Any]:
    """Of rows (n,) of whole patients: groups of equal risk, and patients, by key."""
    inside = [(at, member[:, at]) for at in range(member.shape[1])]
    inside += [
        (base + int(one), when // step == one)
        for step, base in PERIODS.items()
        for one in np.unique(when // step)
    ]
    grouped, counted = [], []
    for key, rows in inside:
        if not rows.any():
            continue
        if _step(key) <= 1:  # longer periods are made of months
            grouped.append(_keyed(key, Risks.of(label[rows], risk[rows]).compact(GROUPS)))
        patients = (np.unique(subject[rows & part]).size for part in (label, ~label))
        counted.append({"key": key, **dict(zip(PATIENTS, patients, strict=True))})
    if not grouped:
        return {}
    return {"subgroups": pa.concat_tables(grouped), "patients": pa.Table.from_pylist(counted)}


def _keyed(key: int, risks: Risks) -> pa.Table:
    table = risks.table()
    return table.append_column("key", pa.array(np.full(table.num_rows, key, np.int64)))


def _regrouped(tables: Sequence[pa.Table]) -> pa.Table:
    found = by_key(pa.concat_tables(tables))
    return pa.concat_tables(_keyed(key, risks) for key, risks in found.items())


def _counted(tables: Sequence[pa.Table]) -> pa.Table:
    found = pa.concat_tables(tables).group_by("key").aggregate([(n, "sum") for n in PATIENTS])
    return found.rename_columns({f"{n}_sum": n for n in PATIENTS}).select(["key", *PATIENTS])


MERGES = {"subgroups": _regrouped, "patients": _counted}


def by_key(table: pa.Table) -> dict[int, Risks]:
    """The groups of each key."""
    keys = sorted(pc.unique(table.column("key")).to_pylist())
    return {
        key: Risks.merge([Risks.read(table.filter(pc.field("key") == key))]).compact(GROUPS)
        for key in keys
    }


@dataclass(frozen=True)
class Keys:
    """What replicates are added up by: ``groups`` subgroups, and periods of ``step`` months.

    ``cut``: of the judged model's risks, which is number ``of``.
    """

    cut: Cut
    of: int
    groups: int
    periods: tuple[int, ...]
    step: int

    @property
    def count(self) -> int:
        """How many keys."""
        return self.groups + len(self.periods)

    def pairs(self, member: Ints, when: Ints) -> Pairs:
        """The keys of rows (n,), by row."""
        row, key = np.nonzero(subgroups.unpacked(member, self.groups))
        if self.periods:
            periods = np.array(self.periods)
            at = np.searchsorted(periods, when // self.step).clip(0, len(periods) - 1)
            told = np.flatnonzero(periods[at] == when // self.step)
            row, key = np.r_[row, told], np.r_[key, self.groups + at[told]]
            order = np.argsort(row, kind="stable")
            row, key = row[order], key[order]
        return Pairs(row, key)


def _step(key: int) -> int:
    """Of how many months a key's period is; 0: it is a subgroup's."""
    near = {step: abs(key - base) < MONTHS // 2 for step, base in PERIODS.items()}
    return next((step for step, inside in near.items() if inside), 0)


def periods(patients: Mapping[int, Mapping[str, int]]) -> tuple[tuple[int, ...], int]:
    """The periods that are told of, and of how many months each is; none where they are many.

    Months, else quarters, else years: the first of which at least half can be shown.
    """
    for step, base in PERIODS.items():
        found = {key - base: counts for key, counts in patients.items() if _step(key) == step}
        shown = sum(min(counts.values()) >= FEWEST for counts in found.values())
        if 1 < len(found) <= MOST_PERIODS and 2 * shown >= len(found):
            return tuple(sorted(found)), step
    return (), 1


def _called(period: int, step: int) -> str:
    """A month as 2025-01, a quarter as 2025 Q1, a year as 2025."""
    year, month = divmod(period * step, 12)
    ends = {1: f"-{month + 1:02}", 3: f" Q{month // 3 + 1}", 12: ""}
    return f"{1970 + year}{ends[step]}"


def told(
    drawn: Floats,
    keys: Keys,
    groups: Sequence[Group],
    found: Mapping[int, Risks],
    patients: Mapping[int, Mapping[str, int]],
    *,
    repeats: int = 1,
    threshold: float,
    confidence: float,
) -> dict[str, Any]:
    """``subgroups`` and ``months``, from replicates (1 + b, keys, 2, NUMBERS); small ones hidden.

    ``found`` and ``patients``: the groups of equal risk and the patients of each key; ``repeats``:
    how many times each row was judged, by the ``threshold`` of the model at work.
    """
    everyone = keys.cut.risks
    names: list[tuple[str, str]] = [(g.kind, g.name) for g in groups]
    sets: list[list[int]] = [[at] for at in range(len(groups))]
    counted = list(range(len(groups)))
    for period in keys.periods:
        names.append(("month", _called(period, keys.step)))
        sets.append([MONTHS + period * keys.step + at for at in range(keys.step)])
        counted.append(PERIODS[keys.step] + period)
    rows = []
    for at, ((kind, name), of, key) in enumerate(zip(names, sets, counted, strict=True)):
        mine = Risks.merge([found[key] for key in of if key in found])
        if not mine.rows:
            continue
        row: dict[str, Any] = {"kind": kind, "name": name}
        row |= {"rows": mine.rows // repeats, "positive": mine.positives // repeats}
        row["patients"] = [patients[key][one] for one in PATIENTS]
        value = subgroups.exactly(everyone, mine, threshold)
        row |= subgroups.told(drawn[:, at], value, confidence=confidence)
        rows.append(row)
    called = float(everyone.total[everyone.score >= threshold].sum()) / max(everyone.rows, 1)
    _hide(rows, everyone.rows // repeats, everyone.positives // repeats, called)
    return {
        "subgroups": [row for row in rows if row["kind"] != "month"],
        "months": [row for row in rows if row["kind"] == "month"],
    }


def _hide(rows: list[dict[str, Any]], every: int, positive: int, called: float) -> None:
    """Take away what would tell of few: by the one rule for small counts, within each kind.

    A row of fewer than 5 patients with the outcome or without it is hidden, and with a single
    hidden one the next smallest; so is the comparison with a rest of as few. Where few of a row or
    of its rest are flagged, or are not, no row of the kind tells of flags, for the others would
    give it away. ``called``: the part of all rows that is flagged.
    """
    for kind in dict.fromkeys(row["kind"] for row in rows):
        some = [row for row in rows if row["kind"] == kind]
        least = [min(row["patients"]) for row in some]
        shown = disclosure.parts(least)
        bare = any(_few(row, every, called) for row, seen in zip(some, shown, strict=True) if seen)
        for row, seen in zip(some, shown, strict=True):
            having = positive - row["positive"]
            rest = min(having, every - row["rows"] - having)
            row["shown"] = seen
            del row["patients"]
            if not seen:
                row |= {"rows": None, "positive": None, "metrics": {}}
            elif bare:
                for key in ("metrics", "difference"):
                    row[key] = {k: v for k, v in row[key].items() if k not in FLAGS}
                row["fairness"] = {}
            if not seen or rest < FEWEST:
                row |= {"difference": {}, "fairness": {}}


def _few(row: dict[str, Any], every: int, called: float) -> bool:
    """Whether few of a row, or of the rest of all, are flagged or are not."""
    rate, rest = row["metrics"]["alert_rate"]["value"], every - row["rows"]
    if disclosure.few_flagged(rate, row["rows"]):
        return True
    flagged = called * every - (rate or 0.0) * row["rows"]
    return rest > 0 and disclosure.few_flagged(flagged / rest, rest)
