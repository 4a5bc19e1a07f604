"""A chunk of acquired events while the rules clean it.

Rows keep their places until the end: a rule names the rows it refuses or changes by position, so
that what was refused can be shown as it was. Nothing is copied for a rule that finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom import events
from clinloom.clean._simultaneous import in_order
from clinloom.events import Flags, Floats, Ints
from clinloom.tables import ACQUIRED, EVENTS, LEDGER, REFUSED, REJECTED

STAGE = "clean"


class Sheet:
    """Acquired events under the rules: what is kept, what changed, what was refused and why.

    ``refused`` (REFUSED): what the sources refused of the same patients; ``units``: of codes that
    no vocabulary knows, the unit that was learned, None where several came and none is trusted.
    """

    def __init__(
        self,
        acquired: pa.Table,
        refused: pa.Table | None = None,
        units: Mapping[str, str | None] | None = None,
    ):
        self.rows = acquired.num_rows
        self.units = units or {}
        self.refused = REFUSED.empty if refused is None else refused
        self.kept: Flags = np.ones(self.rows, bool)
        self._acquired = acquired
        self._changed: set[str] = set()
        self._refused: list[tuple[Ints, str]] = []
        self._notes: list[tuple[Ints, str, str]] = []
        self._order: Ints | None = None

    def column(self, name: str) -> pa.Array:
        """A column as acquired; nulls where the source has none."""
        if name in self._acquired.column_names:
            return events.column(self._acquired, name)
        return pa.nulls(self.rows, ACQUIRED.arrow.field(name).type)

    @cached_property
    def subject(self) -> Ints:
        """subject_id (n,)."""
        return events.subjects(self._acquired)

    @cached_property
    def time(self) -> Ints:
        """Microseconds (n,); STATIC where there is none."""
        return events.times(self.column("time"))

    @cached_property
    def earlier(self) -> Ints:
        """By how many microseconds before its time each may have happened (n,); 0: not before."""
        earlier: Ints = self.column("earlier").fill_null(0).to_numpy()
        return earlier

    @cached_property
    def value(self) -> Floats:
        """Numeric values (n,); NaN where there is none."""
        return events.numbers(self.column("numeric_value"))

    @cached_property
    def code(self) -> tuple[np.ndarray, list[str]]:
        """Positions (n,) in the list of codes."""
        return events.coded(self.column("code"))

    @cached_property
    def unit(self) -> tuple[np.ndarray, list[str]]:
        """Positions (n,) in the list of units; -1 where there is none."""
        return events.coded(self.column("unit"))

    @cached_property
    def source(self) -> tuple[np.ndarray, list[str]]:
        """Positions (n,) in the list of sources; -1 where there is none."""
        return events.coded(self.column("source"))

    def set_time(self, rows: Ints, time: Ints) -> None:
        """Give ``rows`` their event times."""
        self.time = self._edited("time", self.time)
        self.time[rows] = time

    def set_earlier(self, rows: Ints, earlier: Ints) -> None:
        """Say how long before their times ``rows`` may have happened."""
        self.earlier = self._edited("earlier", self.earlier)
        self.earlier[rows] = earlier

    def set_value(self, rows: Ints, value: Floats) -> None:
        """Give ``rows`` their values."""
        self.value = self._edited("numeric_value", self.value)
        self.value[rows] = value

    def set_unit(self, rows: Ints, unit: np.ndarray, units: list[str]) -> None:
        """Give ``rows`` their units, as positions in ``units``."""
        self.unit = self._named("unit", self.unit, rows, unit, units)

    def set_code(self, rows: Ints, code: np.ndarray, codes: list[str]) -> None:
        """Give ``rows`` their codes, as positions in ``codes``."""
        if len(rows):
            self.code = self._named("code", self.code, rows, code, codes)
            self.__dict__.pop("_rank", None)

    def _named(
        self,
        column: str,
        given: tuple[np.ndarray, list[str]],
        rows: Ints,
        chosen: np.ndarray,
        names: list[str],
    ) -> tuple[np.ndarray, list[str]]:
        """``given`` with ``rows`` called by ``names``, of which those it lacks are added."""
        positions, known = given
        place = {name: at for at, name in enumerate(known)}
        known = [*known, *(name for name in names if name not in place)]
        place = {name: at for at, name in enumerate(known)}
        moved = np.array([place[name] for name in names], np.int32)
        positions = self._edited(column, positions)
        positions[rows] = moved[chosen]
        return positions, known

    def _edited(self, name: str, array: np.ndarray) -> np.ndarray:
        self._order = None
        if name in self._changed:
            return array
        self._changed.add(name)
        return array.copy()

    def note(self, rows: Ints, *, rule: str, action: str) -> None:
        """Count ``rows`` in the ledger."""
        if len(rows):
            self._notes.append((rows, rule, action))

    def reject(self, rows: Ints, reason: str) -> None:
        """Refuse ``rows``: they leave the events, are kept in `rejected` and counted."""
        rows = rows[self.kept[rows]]
        if len(rows):
            self.kept[rows] = False
            self._refused.append((rows, reason))
            self.note(rows, rule=reason, action="rejected")

    def reject_numbers(self, rows: Ints, reason: str) -> None:
        """Refuse the numbers of ``rows`` alone: the facts stay, without them."""
        rows = rows[self.kept[rows]]
        if len(rows):
            self.set_value(rows, np.full(len(rows), np.nan))
            self._refused.append((rows, reason))
            self.note(rows, rule=reason, action="rejected")

    def remove(self, rows: Ints, *, rule: str) -> None:
        """Take ``rows`` out as redundant: counted, but nothing is lost by it."""
        self.kept[rows] = False
        self.note(rows, rule=rule, action="removed")

    def ordered(self) -> Ints:
        """The kept rows in the order (subject, time, code, value, text, record), nulls first."""
        if self._order is None:
            rows = np.flatnonzero(self.kept)
            sorted_ = self._in_order(rows)
            if not sorted_:
                rows = rows[np.lexsort(self._keys(rows)[::-1])]
            if not sorted_ or self._changed & {"time", "numeric_value"}:
                self._settle(rows)
            self._order = rows
        return self._order[self.kept[self._order]]

    @cached_property
    def _rank(self) -> np.ndarray:
        positions, codes = self.code
        rank = np.empty(len(codes), np.int64)
        rank[sorted(range(len(codes)), key=codes.__getitem__)] = np.arange(len(codes))
        return rank[positions] if len(codes) else np.zeros(len(positions), np.int64)

    def _keys(self, rows: Ints) -> tuple[np.ndarray, ...]:
        value = self.value[rows]
        return (
            self.subject[rows],
            self.time[rows],
            self._rank[rows],
            np.where(np.isnan(value), -np.inf, value),
        )

    def _in_order(self, rows: Ints) -> bool:
        """Whether adjacent rows ascend; ties are looked at only where the keys before tie."""
        before, after = rows[:-1], rows[1:]
        for key in (self.subject, self.time, self._rank, self.value):
            low, high = key[before], key[after]
            if (low > high).any() or (key is self.value and _null_after(low, high)):
                return False
            ties = low == high
            before, after = before[ties], after[ties]
            if not len(before):
                break
        return True

    def _settle(self, rows: Ints) -> None:
        """Put rows that tie in subject, time, code and value in the order of text and record."""
        near = np.arange(max(len(rows) - 1, 0))
        for key in (self.subject, self.time, self.code[0], self.value):
            low, high = key[rows[near]], key[rows[near + 1]]
            near = near[(low == high) | ((low != low) & (high != high))]
        if not len(near):
            return
        places = np.unique(np.concatenate([near, near + 1]))
        begins = np.ones(len(rows), bool)
        begins[near + 1] = False
        run = np.cumsum(begins)[places]
        members = pa.array(rows[places])
        text = self.column("text_value").take(members).to_pylist()
        record = self.column("record_id").take(members).to_pylist()
        names = [(t is not None, t or "", r or "") for t, r in zip(text, record, strict=True)]
        rows[places] = rows[places[sorted(range(len(places)), key=lambda i: (run[i], names[i]))]]

    def finished(self) -> dict[str, pa.Table]:
        """The clean events, what was refused, and the ledger."""
        return {"events": self._events(), "rejected": self._rejected(), "ledger": self._ledger()}

    def _events(self) -> pa.Table:
        rows = in_order(self, self.ordered())
        whole = len(rows) == self.rows and bool((rows == np.arange(self.rows)).all())
        ascending = whole or len(rows) < 2 or bool((rows[1:] > rows[:-1]).all())
        table = pa.table({name: self._current(name) for name in EVENTS.arrow.names})
        if not whole:
            table = table.filter(pa.array(self.kept)) if ascending else table.take(pa.array(rows))
        fields = [f.with_type(table.schema.field(f.name).type) for f in EVENTS.arrow]
        return pa.table(table.columns, schema=pa.schema(fields))

    def _current(self, name: str) -> pa.Array:
        """A column as the rules left it; dictionary-encoded strings stay so."""
        given = self.column(name)
        if name in self._changed:
            if name == "time":
                return events.timestamps(self.time)
            if name == "earlier":
                return pa.array(self.earlier, mask=self.earlier == 0)
            if name == "numeric_value":
                return pa.array(self.value, mask=np.isnan(self.value))
            positions, names = self.unit if name == "unit" else self.code
            made = pa.DictionaryArray.from_arrays(
                pa.array(positions, pa.int32(), mask=positions < 0), pa.array(names, pa.string())
            )
            return made if isinstance(given, pa.DictionaryArray) else made.cast(pa.string())
        declared = EVENTS.arrow.field(name).type
        if given.type == declared or isinstance(given, pa.DictionaryArray):
            return given
        return given.cast(declared)

    def _rejected(self) -> pa.Table:
        if not self._refused:
            return REJECTED.empty
        rows = np.concatenate([rows for rows, _ in self._refused])
        reasons = [reason for rows, reason in self._refused for _ in range(len(rows))]
        order = np.argsort(rows, kind="stable")
        at = pa.array(rows[order])
        made: dict[str, Any] = {
            name: self.column(name).take(at).cast(REJECTED.arrow.field(name).type)
            for name in ("subject_id", "source", "record_id", "code")
        }
        made["stage"] = pa.repeat(STAGE, len(at))
        made["reason"] = pa.array(reasons, pa.string()).take(pa.array(order))
        for name in ("file", "position"):
            made[name] = pa.nulls(len(at), REJECTED.arrow.field(name).type)
        return pa.table([made[f.name] for f in REJECTED.arrow], schema=REJECTED.arrow)

    def _ledger(self) -> pa.Table:
        if not self._notes:
            return LEDGER.empty
        source, sources = self.source
        code, codes = events.coded(self.column("code"))  # as the source wrote it
        counted: dict[tuple[str | None, str | None, str, str], int] = {}
        for rows, rule, action in self._notes:
            pairs = (source[rows].astype(np.int64) + 1) * len(codes) + code[rows]
            found, counts = np.unique(pairs, return_counts=True)
            for pair, count in zip(found.tolist(), counts.tolist(), strict=True):
                name = sources[pair // len(codes) - 1] if pair >= len(codes) else None
                key = (name, codes[pair % len(codes)], rule, action)
                counted[key] = counted.get(key, 0) + count
        listed = sorted(counted.items(), key=lambda item: (item[0][0] or "", *item[0][1:]))
        columns = ["source", "code", "rule", "action"]
        return LEDGER.rows(
            [{**dict(zip(columns, key, strict=True)), "count": n} for key, n in listed]
        )


def _null_after(low: np.ndarray, high: np.ndarray) -> bool:
    return bool((np.isnan(high) & ~np.isnan(low)).any())
