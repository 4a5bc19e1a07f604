"""What sources' kernels counted, as rows of the ledger on their way; what is said of it first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events as ev
from clinloom.errors import SourceError
from clinloom.report import doubts
from clinloom.run import sums
from clinloom.tables import CALLED, KNOWN_AT_END, LEDGER, Fault, faults

# Rows that the driver takes out again.
EVENTS_OF = "events of a source"
IMAGES_OF = "images of a source"
TOLD_BY = "systems that a source tells"
UNIT_OF = "units of a code"  # the unit is the action
MOST_UNITS = 1 << 17  # codes in their units that are kept, the commonest, where a column is garbage
ON_THEIR_WAY = (EVENTS_OF, IMAGES_OF, TOLD_BY, UNIT_OF, CALLED)


SECOND = 1_000_000  # microseconds


class Tally:
    """What a group of a source's units gave."""

    def __init__(self) -> None:
        self.systems: dict[str, None] = {}  # of the identifiers that it tells
        self._events = self._images = self._hourless = 0
        self._refused: Counter[Fault] = Counter()
        self._units: Counter[tuple[str, str]] = Counter()

    def add(self, parcel: Mapping[str, pa.Table]) -> None:
        """Count a parcel's tables."""
        if "events" in parcel:
            self._events += parcel["events"].num_rows
            self._hourless += _hourless(parcel["events"])
            self._units += sums.measured(parcel["events"])
        if "images" in parcel:
            self._images += parcel["images"].num_rows
        if "rejected" in parcel:
            self._refused += faults(parcel["rejected"])

    def ledger(self, source: str) -> pa.Table:
        """LEDGER: the rows of it all."""
        refused, units = self._refused.items(), self._units.most_common(MOST_UNITS)
        rows: list[tuple[str, str | None, str, int]]
        rows = [(EVENTS_OF, None, "", self._events), (IMAGES_OF, None, "", self._images)]
        rows += [(EVENTS_OF, field, reason, n) for (reason, field), n in refused]
        rows += [("no_hour", None, KNOWN_AT_END, self._hourless)] if self._hourless else []
        rows += [(TOLD_BY, system, "", 1) for system in self.systems]
        rows += [(UNIT_OF, code, unit, n) for (code, unit), n in units]
        names = ("rule", "code", "action", "count")
        return LEDGER.rows({"source": source, **dict(zip(names, row, strict=True))} for row in rows)


def _hourless(events: pa.Table) -> int:
    """How many events are known at the last microsecond of a day, a month or a year."""
    if "earlier" not in events.column_names:
        return 0
    known = ev.times(ev.column(events, "time").filter(ev.column(events, "earlier").is_valid()))
    return int(np.count_nonzero((known + 1) % SECOND == 0))


def measured(ledger: pa.Table) -> pa.Table:
    """sums.MEASURED, from what the sources' kernels counted."""
    rows = ledger.filter(pc.equal(ledger.column("rule"), UNIT_OF))
    found = rows.group_by(["code", "action"]).aggregate([("count", "sum")])
    order = [("count_sum", "descending"), ("code", "ascending"), ("action", "ascending")]
    found = found.select(["code", "action", "count_sum"]).sort_by(order)[:MOST_UNITS]
    return found.rename_columns(sums.MEASURED.arrow.names).cast(sums.MEASURED.arrow)


def refused(sources: Iterable[str], ledger: pa.Table) -> Iterator[str]:
    """A line for each source of which more was refused than read."""
    for name in sources:
        events, reasons = _counts(name, ledger)
        images, _ = _counts(name, ledger, of=IMAGES_OF)
        yield from doubts.refused(name, images or events, reasons)


def moved(sources: Iterable[str], ledger: pa.Table) -> Iterator[str]:
    """A line for each source of which most events are timed otherwise than by when they were
    known."""
    for name in sources:
        yield from doubts.moved(name, _counts(name, ledger)[0], ledger.to_pylist())


def _counts(name: str, ledger: pa.Table, *, of: str = EVENTS_OF) -> tuple[int, dict[Fault, int]]:
    """How many events a source gave, and how many records it refused, by reason and field."""
    rows = [row for row in ledger.to_pylist() if row["rule"] == of and row["source"] == name]
    found = {(row["action"], row["code"]): row["count"] for row in rows}
    return found.pop(("", None), 0), found


def tell_empty(sources: Iterable[str], ledger: pa.Table) -> None:
    """Raise SourceError where a source gave no event, with the commonest reason of refusal."""
    for name in sources:
        events, reasons = _counts(name, ledger)
        if events:
            continue
        mend = "does the mapping fit the files?"
        if reasons:
            mend = f"{sum(reasons.values()):,} records were refused, {doubts.mostly(reasons)}"
        raise SourceError("no event was found in this source", where=f"sources.{name}", mend=mend)
