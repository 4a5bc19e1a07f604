"""A chunk of acquired events while the rules clean it.

Rows keep their places until the end: a rule names the rows it refuses or changes by position, so
that what was refused can be shown as it was. Nothing is copied for a rule that finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom import events
from clinloom.clean._simultaneous import in_order
from clinloom.clean._ties import after, arranged
from clinloom.events import Flags, Floats, Ints
from clinloom.tables import ACQUIRED, EVENTS, LEDGER, REFUSED, REJECTED

STAGE = "clean"
SPLICED = 500  # places, up to which a column is put together from what lies between them
TIED = ["subject_id", "time", "code"]  # in which simultaneous numbers of a code are the same


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
        self._columns: dict[str, pa.Array] = {}
        self._changed: set[str] = set()
        self._refused: list[tuple[Ints, str, str | None]] = []
        self._notes: list[tuple[Ints, str, str]] = []
        self._order: Ints | None = None
        self._ties: tuple[Flags, Flags]  # of the order: see `simultaneous`
        self._moved = False  # whether the order is another than the acquired one

    def column(self, name: str) -> pa.Array:
        """A column as acquired; nulls where the source has none."""
        made = self._columns.get(name)
        if made is None:
            there = name in self._acquired.column_names
            empty = ACQUIRED.arrow.field(name).type
            made = events.column(self._acquired, name) if there else pa.nulls(self.rows, empty)
            self._columns[name] = made
        return made

    def texts(self, name: str, rows: Ints) -> pa.Array:
        """A column of strings as acquired, of some rows."""
        return self.column(name).take(pa.array(rows)).cast(pa.string())

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
        """Numeric values (n,); NaN where there is none: what a source calls NaN is none, too."""
        given = self.column("numeric_value")
        value = events.numbers(given)
        if np.count_nonzero(np.isnan(value)) == given.null_count:
            return value
        self._changed.add("numeric_value")
        return value.copy()

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

    def reject(self, rows: Ints, reason: str, field: str | None = None) -> None:
        """Refuse ``rows``: they leave the events, are kept in `rejected` and counted.

        ``field``: their column that is at fault, where it is one.
        """
        rows = rows[self.kept[rows]]
        if len(rows):
            self.kept[rows] = False
            self._refused.append((rows, reason, field))
            self.note(rows, rule=reason, action="rejected")

    def reject_numbers(self, rows: Ints, reason: str, field: str) -> None:
        """Refuse the numbers of ``rows`` alone: the facts stay, without them."""
        rows = rows[self.kept[rows]]
        if len(rows):
            self.set_value(rows, np.full(len(rows), np.nan))
            self._refused.append((rows, reason, field))
            self.note(rows, rule=reason, action="rejected")

    def remove(self, rows: Ints, *, rule: str) -> None:
        """Take ``rows`` out as redundant: counted, but nothing is lost by it."""
        self.kept[rows] = False
        self.note(rows, rule=rule, action="removed")

    def ordered(self) -> Ints:
        """The kept rows in the order (subject, time, code, value, text, record), nulls first."""
        if self._order is None:
            self._order = self._sorted(np.flatnonzero(self.kept))
        elif len(self._order) > np.count_nonzero(self.kept):
            left = np.flatnonzero(self._of(self._order, self.kept))
            self._order = self._order[left]
            near, same = self._ties
            self._ties = _between(near, left), _between(same, left)
        return self._order

    @property
    def simultaneous(self) -> tuple[Flags, Flags]:
        """At which places in :meth:`ordered` the next row is of the same subject and time, and at
        which it is of the same code, too (n - 1,)."""
        self.ordered()
        return self._ties

    def placed(self, array: np.ndarray) -> np.ndarray:
        """What rows of the sheet have (n,), in the order of :meth:`ordered`."""
        return self._of(self.ordered(), array)

    def _of(self, rows: Ints, array: np.ndarray) -> np.ndarray:
        """What rows have, without a copy where they are all in their places."""
        return array if len(rows) == self.rows and not self._moved else array[rows]

    def _sorted(self, rows: Ints) -> Ints:
        self._moved = False
        self._ties = self._tied(rows)
        if not self._ascending(rows):
            keys = (self._rank[self.code[0][rows]], self.time[rows], self.subject[rows])
            rows, self._moved = rows[np.lexsort(keys)], True
            self._ties = self._tied(rows)
        near = np.flatnonzero(self._ties[1])
        if not self._moved and not self._changed & {"time", "numeric_value"}:
            value = self._of(rows, self.value)
            low, high = value[near], value[near + 1]
            if not ((low > high) | (np.isnan(high) & ~np.isnan(low))).any():
                return rows
        placed = arranged(rows, near, partial(self._later, rows))
        self._moved |= placed is not rows
        return placed

    def _tied(self, rows: Ints) -> tuple[Flags, Flags]:
        subject, time, code = (self._of(rows, a) for a in (self.subject, self.time, self.code[0]))
        near = (time[1:] == time[:-1]) & (subject[1:] == subject[:-1])
        return near, near & (code[1:] == code[:-1])

    def _ascending(self, rows: Ints) -> bool:
        """Whether rows, of which ``_ties`` tell the simultaneous, ascend by subject, time, code."""
        subject, time, code = (self._of(rows, a) for a in (self.subject, self.time, self.code[0]))
        earlier = (time[1:] < time[:-1]) & (subject[1:] == subject[:-1])
        if earlier.any() or (subject[1:] < subject[:-1]).any():
            return False
        rank = self._rank[code]
        return not ((rank[1:] < rank[:-1]) & self._ties[0]).any()

    @cached_property
    def _rank(self) -> np.ndarray:
        """Each code's place among the sorted ones."""
        codes = self.code[1]
        rank = np.empty(len(codes), np.int32)
        rank[sorted(range(len(codes)), key=codes.__getitem__)] = np.arange(len(codes))
        return rank

    def _later(self, rows: Ints, one: Ints, other: Ints) -> Flags:
        """Where ``rows[one]`` come after ``rows[other]`` by value, text and record, nulls first."""
        low, high = self.value[rows[one]], self.value[rows[other]]
        low, high = (np.where(np.isnan(value), -np.inf, value) for value in (low, high))
        later: Flags = low > high
        same = np.flatnonzero(low == high)
        if len(same):
            one, other = one[same], other[same]
            found = one > other
            for name in ("record_id", "text_value"):
                texts, others = (self.texts(name, rows[at]) for at in (one, other))
                found = after(texts, others, otherwise=found)
            later[same] = found
        return later

    def finished(self, *, ledger: bool = True) -> dict[str, pa.Table]:
        """The clean events, what was refused, and the ledger, where that is asked for."""
        made = {"events": self._events(), "rejected": self._rejected()}
        return {**made, "ledger": self._ledger()} if ledger else made

    def _events(self) -> pa.Table:
        rows = self.ordered()
        placed = in_order(self, rows)
        table = pa.table({name: self._current(name) for name in EVENTS.arrow.names})
        made = {}
        if placed is not rows:
            at = np.flatnonzero(placed != rows)
            before, after = pa.array(rows[at]), pa.array(placed[at])
            moved = [n for n in table.column_names if n not in TIED]
            moved = [n for n in moved if not _alike(events.column(table, n), before, after)]
            if len(at) > SPLICED:
                made = {n: events.column(table, n).take(pa.array(placed)) for n in moved}
        left = self._kept(table.drop(list(made)), rows)
        if placed is not rows and not made:
            cells = table.select(moved).take(after)
            made = {n: _spliced(left.column(n), at, cells.column(n)) for n in moved}
        columns = [made[n] if n in made else left.column(n) for n in table.column_names]
        fields = [f.with_type(c.type) for f, c in zip(EVENTS.arrow, columns, strict=True)]
        return pa.table(columns, schema=pa.schema(fields))

    def _kept(self, table: pa.Table, rows: Ints) -> pa.Table:
        """What is left of the table, in the order of ``rows``."""
        if self._moved:
            return table.take(pa.array(rows))
        if len(rows) == self.rows:
            return table
        same = [n for n in table.column_names if _constant(events.column(table, n))]
        rest = table.drop(same).filter(pa.array(self.kept))
        columns = {n: table.column(n).slice(0, len(rows)) for n in same}
        columns |= {n: rest.column(n) for n in rest.column_names}
        return pa.table({name: columns[name] for name in table.column_names})

    def _current(self, name: str) -> pa.Array:
        """A column as the rules left it; dictionary-encoded strings stay so."""
        given = self.column(name)
        if name in self._changed:
            if name == "time":
                return events.timestamps(self.time)
            if name == "earlier":
                return events.nullable(self.earlier, self.earlier == 0)
            if name == "numeric_value":
                return events.nullable(self.value, np.isnan(self.value))
            positions, names = self.unit if name == "unit" else self.code
            made = pa.DictionaryArray.from_arrays(
                events.nullable(positions, positions < 0), pa.array(names, pa.string())
            )
            return made if isinstance(given, pa.DictionaryArray) else made.cast(pa.string())
        declared = EVENTS.arrow.field(name).type
        if given.type == declared or isinstance(given, pa.DictionaryArray):
            return given
        return given.cast(declared)

    def _rejected(self) -> pa.Table:
        if not self._refused:
            return REJECTED.empty
        refused, *told = zip(*self._refused, strict=True)
        rows = np.concatenate(refused)
        which = np.repeat(np.arange(len(refused)), [len(some) for some in refused])
        order = np.argsort(rows, kind="stable")
        at, which = pa.array(rows[order]), pa.array(which[order])
        made: dict[str, Any] = {
            name: self.column(name).take(at).cast(REJECTED.arrow.field(name).type)
            for name in ("subject_id", "source", "record_id", "code")
        }
        made["stage"] = pa.repeat(STAGE, len(at))
        for name, words in zip(("reason", "field"), told, strict=True):
            made[name] = pa.array(words, pa.string()).take(which)
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
            counts = np.bincount((source[rows] + 1) * np.int64(len(codes)) + code[rows])
            found = np.flatnonzero(counts)
            for pair, count in zip(found.tolist(), counts[found].tolist(), strict=True):
                name = sources[pair // len(codes) - 1] if pair >= len(codes) else None
                key = (name, codes[pair % len(codes)], rule, action)
                counted[key] = counted.get(key, 0) + count
        listed = sorted(counted.items(), key=lambda item: (item[0][0] or "", *item[0][1:]))
        columns = ["source", "code", "rule", "action"]
        return LEDGER.rows(
            [{**dict(zip(columns, key, strict=True)), "count": n} for key, n in listed]
        )


def _between(ties: Flags, left: Ints) -> Flags:
    """Which places tie with the next one, where these are left of those before: all between do."""
    found = ties[left[:-1]]
    gaps = np.flatnonzero(np.diff(left) > 1)
    if len(gaps):
        edges = np.stack([left[gaps], left[gaps + 1]], axis=1).ravel()
        found[gaps] = np.logical_and.reduceat(np.append(ties, True), edges)[::2]
    return found


def _alike(column: pa.Array, some: pa.Array, others: pa.Array) -> bool:
    """Whether a column of few words is the same at the places ``some`` and ``others``."""
    if _constant(column):
        return True
    words = isinstance(column, pa.DictionaryArray)
    return words and bool(column.take(some).equals(column.take(others)))


def _constant(column: pa.Array) -> bool:
    """Whether it is plain that all its rows are the same."""
    if column.null_count == len(column):
        return True
    words = isinstance(column, pa.DictionaryArray)
    return words and not column.null_count and len(column.dictionary) == 1


def _spliced(column: pa.ChunkedArray, at: Ints, cells: pa.ChunkedArray) -> pa.Array:
    """The column with other cells at some places, ascending."""
    parts: list[pa.Array] = []
    done = 0
    for number, place in enumerate(at.tolist()):
        parts += column.slice(done, place - done).chunks + cells.slice(number, 1).chunks
        done = place + 1
    return pa.concat_arrays(parts + column.slice(done).chunks)
