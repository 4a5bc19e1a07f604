"""Watching a model at work: sums of what it saw and said, and which of them raise an alarm.

The same sums are made of the held-out rows of the training (the reference) and of new rows, by
period and subgroup, wherever the rows are; they merge. What is asked of them, how often each
question raises an alarm though nothing changed, and how large a change must be, stands in
``evaluate.alarms`` and docs/monitoring.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.evaluate import cells, drift, fitness
from clinloom.evaluate.cells import Cells, Kept
from clinloom.evaluate.fitness import Estimate
from clinloom.learn.risks import Risks

GROUPS = 2_000  # groups of equal risk that a period keeps
FEW = 5  # patients of a period, or with an outcome in it, of whom nothing is told

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Rows(NamedTuple):
    """Scored moments of whole patients, by subject and time, (n,) each.

    ``period``: its number; ``outcome`` counts where it is ``known``; ``member`` (n, g): subgroups.
    """

    subject: Ints
    period: Ints
    risk: Floats
    flagged: Flags
    outcome: Flags
    known: Flags
    member: Flags


COUNTED = (
    *("rows", "squares", "flagged", "known", "known_squares", "positive"),
    *("marked", "unmarked", "having", "lacking"),  # patients: flagged, or with the outcome, or not
)


def sums(rows: Rows, risk: Cells, intercept: float) -> dict[str, pa.Table]:
    """The partial sums of some patients: ``counted``, ``groups``, ``risks`` and ``spread``.

    A period's key is its number, a subgroup's is -1 less its number. ``squares``: of each patient's
    rows; ``spread``: of each patient's sum of residuals against risks moved by ``intercept``.
    """
    of_period = [(int(p), rows.period == p) for p in np.unique(rows.period)]
    of_group = [(-1 - g, inside) for g, inside in enumerate(rows.member.T)]
    counted, groups = [], []
    for key, inside in (*of_period, *of_group):
        if not inside.any():
            continue
        known = inside & rows.known
        counted.append(
            {
                "key": key,
                "rows": int(inside.sum()),
                "squares": _squares(rows.subject[inside]),
                "flagged": int((inside & rows.flagged).sum()),
                "known": int(known.sum()),
                "known_squares": _squares(rows.subject[known]),
                "positive": int((known & rows.outcome).sum()),
                "marked": _patients(rows.subject[inside & rows.flagged]),
                "unmarked": _patients(rows.subject[inside & ~rows.flagged]),
                "having": _patients(rows.subject[known & rows.outcome]),
                "lacking": _patients(rows.subject[known & ~rows.outcome]),
            }
        )
        if known.any():
            found = Risks.of(rows.outcome[known], rows.risk[known]).compact(GROUPS)
            groups.append(_keyed(key, found))
    known = rows.known
    expected = fitness.shifted(rows.risk[known], intercept)
    rest = rows.outcome[known] - expected
    starts = _starts(rows.subject[known])
    each = np.add.reduceat(rest, starts) if starts.size else np.zeros(0)
    spread = {
        "square": [float(each @ each)],
        "variance": [float((expected * (1 - expected)).sum())],
        "again": [_squares(rows.subject[known]) - int(known.sum())],  # 0: one row a patient
    }
    return {
        "counted": pa.Table.from_pylist(counted, schema=COUNTS),
        "groups": pa.concat_tables(groups) if groups else _keyed(0, Risks.none()),
        "risks": risk.counts(rows.risk[:, None], rows.period, rows.subject),
        "spread": pa.table(spread),
    }


def sized(subject: Ints) -> pa.Table:
    """How many rows there are of whole patients (n,), as ``counted`` tells it."""
    row = dict.fromkeys(COUNTS.names, 0) | {"rows": len(subject), "squares": _squares(subject)}
    return pa.Table.from_pylist([row], schema=COUNTS)


COUNTS = pa.schema([("key", pa.int64()), *((name, pa.int64()) for name in COUNTED)])


def _starts(subject: Ints) -> Ints:
    """Where each patient's rows begin."""
    return np.flatnonzero(np.r_[True, subject[1:] != subject[:-1]][: subject.size])


def _patients(subject: Ints) -> int:
    return int(_starts(subject).size)


def _squares(subject: Ints) -> int:
    """The sum of the squared number of rows of each patient."""
    spans = np.diff(np.r_[_starts(subject), subject.size])
    return int(spans @ spans)


def _keyed(key: int, risks: Risks) -> pa.Table:
    table = risks.table()
    return table.append_column("key", pa.array(np.full(table.num_rows, key, np.int64)))


def _counted(tables: Sequence[pa.Table]) -> pa.Table:
    found = pa.concat_tables(tables).group_by("key").aggregate([(n, "sum") for n in COUNTED])
    return found.rename_columns(COUNTS.names).cast(COUNTS)


def _grouped(tables: Sequence[pa.Table]) -> pa.Table:
    together = pa.concat_tables(tables)
    keys = sorted(pc.unique(together.column("key")).to_pylist()) or [0]
    return pa.concat_tables(
        _keyed(key, Risks.merge([_of(together, key)]).compact(GROUPS)) for key in keys
    )


def _spread(tables: Sequence[pa.Table]) -> pa.Table:
    found = pa.concat_tables(tables)
    return pa.table({name: [pc.sum(found.column(name))] for name in found.column_names})


def _of(groups: pa.Table, key: int) -> Risks:
    return Risks.read(groups.filter(pc.field("key") == key))


MERGES: dict[str, Callable[[Sequence[pa.Table]], pa.Table]] = {
    "counted": _counted,
    "groups": _grouped,
    "risks": cells.merged,
    "spread": _spread,
}


class Patients(NamedTuple):
    """How many patients of a period or subgroup have a row that is flagged, or not, and one with
    the outcome, or without."""

    marked: int = 0
    unmarked: int = 0
    having: int = 0
    lacking: int = 0


class Seen(NamedTuple):
    """What is known of one period or subgroup."""

    rows: int = 0
    apart: float = 1.0  # independent rows for a row
    flagged: int = 0
    known: int = 0
    known_apart: float = 1.0
    positive: int = 0
    risks: Risks = Risks.none()
    patients: Patients = Patients()

    @property
    def told(self) -> bool:
        """Whether its outcomes may be told: enough patients have and have not the outcome."""
        return min(self.patients.having, self.patients.lacking) >= FEW


def seen(found: Mapping[str, pa.Table]) -> tuple[dict[int, Seen], float]:
    """Merged sums by key, and by how much outcomes of a patient go together (at least 1)."""
    out = {}
    for row in found["counted"].to_pylist():
        apart = float(drift.effective(row["rows"], row["squares"])) / max(1, row["rows"])
        known = float(drift.effective(row["known"], row["known_squares"])) / max(1, row["known"])
        out[row["key"]] = Seen(
            row["rows"],
            apart or 1.0,
            row["flagged"],
            row["known"],
            known or 1.0,
            row["positive"],
            _of(found["groups"], row["key"]),
            Patients(*(row[name] for name in Patients._fields)),
        )
    wide = found["spread"].to_pylist()[0]
    ratio = wide["square"] / wide["variance"] if wide["again"] and wide["variance"] > 0 else 1.0
    return out, max(1.0, ratio)


@dataclass(frozen=True)
class Reference:
    """What a bundle tells of the rows that its model was learned from and judged on.

    ``features``: their names and cells, of training rows, ``apart`` independent ones for a row;
    the rest is of held-out rows: ``risk`` (one feature), ``flagged`` of ``rows``, the estimates of
    all and of each subgroup, and what other patients are held against (``mix``: see ``casemix``;
    empty of bundles of before it). ``codes``: units by code, of ``pairs`` of patient and code.
    """

    names: tuple[str, ...]
    features: Kept
    apart: float
    risk: Kept
    rows: int
    rows_apart: float
    flagged: int
    whole: Estimate
    groups: Mapping[str, Estimate]
    codes: Mapping[str, Sequence[str]]
    pairs: int
    mix: Mapping[str, float | None] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As a document."""
        return {
            "features": [
                {"name": name, **told}
                for name, told in zip(self.names, self.features.plain(), strict=True)
            ],
            "apart": self.apart,
            "risk": self.risk.plain()[0],
            "rows": self.rows,
            "rows_apart": self.rows_apart,
            "flagged": self.flagged,
            "whole": self.whole.plain(),
            "groups": {name: found.plain() for name, found in self.groups.items()},
            "codes": dict(self.codes),
            "pairs": self.pairs,
            "mix": dict(self.mix),
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Reference:
        """The inverse of :meth:`plain`. Raises KeyError where a part is missing."""
        plain = {k: document[k] for k in ("apart", "rows", "rows_apart", "flagged", "pairs")}
        return cls(
            names=tuple(one["name"] for one in document["features"]),
            features=Kept.parse(document["features"]),
            risk=Kept.parse([document["risk"]]),
            whole=Estimate.parse(document["whole"]),
            groups={name: Estimate.parse(one) for name, one in document["groups"].items()},
            codes=document["codes"],
            mix=document.get("mix", {}),
            **plain,
        )
