"""Small tables that add up, whatever the parts: the ledger, counts, the cohort's flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.events import (
    DAY,
    STATIC,
    coded,
    column,
    numbers,
    patients,
    subjects,
    times,
    timestamps,
)
from clinloom.tables import (
    COUNTS,
    EXTENT,
    FLOW,
    LEDGER,
    STRATA,
    TIME,
    VOCABULARY,
    Column,
    Table,
    conform,
)

REACH = Table(
    "reach",
    "on how many patients each day was the last seen: what the extent is found from",
    (
        Column("day", pa.int64(), "days since 1970-01-01", False),
        Column("subjects", pa.int64(), "patients last seen on it", False),
        Column("last", TIME, "the last event of that day", False),
    ),
    ("day",),
)
MEASURED = Table(
    "acquisition_units",
    "in which units the numbers of each code came: what one unit a code is found from",
    (
        Column("code", pa.string(), "the events' code", False),
        Column("unit", pa.string(), "as the sources write it; empty: none was told", False),
        Column("events", pa.int64(), "how many numbers", False),
    ),
)
PAIRS = 1 << 20  # codes in all units, up to which a table of them is made
LEAST, FEW = 20, 1000  # patients, from which on one may be an outlier, and 1 in so many
APART = 730 * DAY  # after everybody else


def totals(parts: Sequence[pa.Table], table: Table, *, by: Sequence[str]) -> pa.Table:
    """The parts with each combination of ``by`` once, in its order, all other columns added up."""
    if not parts:
        return table.empty
    others = [name for name in table.arrow.names if name not in by]
    whole = pa.concat_tables([conform(part, table) for part in parts])
    found = whole.group_by(list(by)).aggregate([(n, "sum") for n in others])
    found = found.rename_columns([*by, *others] if found.column_names[0] in by else [*others, *by])
    made = found.select(table.arrow.names).cast(table.arrow)
    return made.sort_by([(name, "ascending") for name in by])


def summed(parts: Sequence[pa.Table]) -> pa.Table:
    """A ledger with each (source, code, rule, action) once."""
    return totals(parts, LEDGER, by=["source", "code", "rule", "action"])


def added(parts: Sequence[pa.Table]) -> pa.Table:
    """COUNTS with each (table, source, stage, reason, field) once."""
    return totals(parts, COUNTS, by=["table", "source", "stage", "reason", "field"])


def flowed(parts: Sequence[pa.Table]) -> pa.Table:
    """FLOW with each step once."""
    return totals(parts, FLOW, by=["step", "name"])


def voiced(parts: Sequence[pa.Table]) -> pa.Table:
    """VOCABULARY with each family's code once."""
    return totals(parts, VOCABULARY, by=["family", "code"])


def divided(parts: Sequence[pa.Table]) -> pa.Table:
    """STRATA with each salt's part and stratum once."""
    return totals(parts, STRATA, by=["division", "salt", "part", "positive"])


def reached(parts: Sequence[pa.Table]) -> pa.Table:
    """REACH with each day once."""
    found = pa.concat_tables(parts).group_by("day", use_threads=False)
    made = found.aggregate([("subjects", "sum"), ("last", "max")])
    return made.rename_columns(REACH.arrow.names).cast(REACH.arrow).sort_by("day")


def reach(events: pa.Table) -> pa.Table:
    """REACH of whole patients' events (EVENTS, sorted)."""
    _, starts = patients(subjects(events))
    last = times(column(events, "time"))[starts[1:] - 1]
    last = last[last != STATIC]
    rows = {"day": last // DAY, "subjects": np.ones(len(last), np.int64)}
    return reached([pa.table({**rows, "last": timestamps(last)}).cast(REACH.arrow)])


def ending(reach: pa.Table) -> tuple[pa.Table, int]:
    """EXTENT, and how many patients are seen beyond it.

    Where a few (1 in 1,000, at least one of 20) are last seen more than two years after all others,
    as by an event of 2099, the extract ends where the others do.
    """
    seen = np.cumsum(reach.column("subjects").to_numpy()[::-1])[::-1]  # on that day or later
    last = times(column(reach, "last"))
    total = int(seen[0])
    most = max(1, total // FEW) if total >= LEAST else 0
    apart = np.flatnonzero((np.diff(last) > APART) & (seen[1:] <= most))
    end = int(apart[0]) if len(apart) else len(last) - 1
    beyond = int(seen[end + 1]) if len(apart) else 0
    return pa.table([timestamps(last[end : end + 1])], schema=EXTENT.arrow), beyond


def measured(events: pa.Table) -> Counter[tuple[str, str]]:
    """How many numbers there are of each code in each unit; "": in none.

    ``events``: code, numeric_value and, where there are any, unit.
    """
    if "numeric_value" not in events.column_names:
        return Counter()
    value = numbers(column(events, "numeric_value"))
    code, codes = coded(column(events, "code"))
    rows = np.flatnonzero((value == value) & (code >= 0))
    unit, units = np.full(len(code), -1, np.int32), list[str]()
    if "unit" in events.column_names:
        unit, units = coded(column(events, "unit"))
    width = len(units) + 1
    pair = code[rows].astype(np.int64) * width + unit[rows] + 1
    if len(codes) * width <= PAIRS:
        counts = np.bincount(pair, minlength=1)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(pair, return_counts=True)
    return Counter(
        {
            (codes[at // width], units[at % width - 1] if at % width else ""): n
            for at, n in zip(found.tolist(), counts.tolist(), strict=True)
        }
    )


def counted(name: str, rows: pa.Table) -> pa.Table:
    """COUNTS of a table's rows, by source, and of refusals also by stage, reason and field."""
    by = [c for c in ("source", "stage", "reason", "field") if c in rows.column_names]
    if not by:
        return COUNTS.rows([{"table": name, "rows": rows.num_rows}])
    plain = pa.table({c: _text(rows.column(c)) for c in by})
    found = plain.group_by(by).aggregate([([], "count_all")])
    cells = {c: found.column(c) for c in by}
    made = {f.name: cells.get(f.name, pa.nulls(found.num_rows, f.type)) for f in COUNTS.arrow}
    made["table"] = pa.repeat(pa.scalar(name), found.num_rows)
    made["rows"] = pc.cast(found.column("count_all"), pa.int64())
    return pa.table(made).cast(COUNTS.arrow)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())
