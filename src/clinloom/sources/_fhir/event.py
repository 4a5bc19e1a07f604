"""An event of a resource whose times are still text, and why there may be none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from clinloom.sources._fhir import resources as r4

# A plain tuple, since there are hundreds of thousands a second: patient, time, made, onset, code,
# number, text, unit, record_id. ``made`` is a result's own time where ``time`` is that of its
# release, ``onset`` a condition's where ``time`` is when it was recorded; each is empty where that
# is not told, and ``time`` is the fact's own.
Event = tuple[
    str,
    str | None,
    str | None,
    str | None,
    str,
    float | None,
    str | None,
    str | None,
    str,
]
TEXT = pa.string()
TYPES = (TEXT, TEXT, TEXT, TEXT, TEXT, pa.float64(), TEXT, TEXT, TEXT, TEXT)
SETTLED = 1 << 11  # events


class Refused(Exception):
    """The resource, or a part of it, is refused: the reason, and what it tells all the same."""

    def __init__(self, reason: str, told: Sequence[Event] = ()):
        super().__init__(reason)
        self.told = told


class Rows:
    """Events column by column; the last column is when the resource of each was updated."""

    def __init__(self) -> None:
        self._columns: tuple[list[Any], ...] = tuple([] for _ in TYPES)
        self._single: list[tuple[Any, ...]] = []  # what was added after these
        self._settled: list[list[pa.Array]] = []
        self._before = 0

    def __len__(self) -> int:
        return self._before + len(self._columns[0]) + len(self._single)

    def extend(self, columns: Iterable[Sequence[Any]]) -> None:
        """Add events that stand in columns."""
        if self._single:
            single, self._single = self._single, []
            self.extend(zip(*single, strict=True))
        for column, values in zip(self._columns, columns, strict=True):
            column.extend(values)

    def add(self, events: Iterable[Event], meta: r4.Meta | None) -> None:
        """Add the events of one resource."""
        updated = meta.lastUpdated if meta is not None else None
        self._single += [(*event, updated) for event in events]

    def settle(self, least: int = SETTLED) -> None:
        """Turn what was added to arrays, where it is that much: while it is in the cache."""
        if len(self) - self._before < least:
            return
        self.extend([()] * len(TYPES))
        self._before = len(self)
        found = [pa.array(c, t) for c, t in zip(self._columns, TYPES, strict=True)]
        self._settled.append(found)
        for column in self._columns:
            column.clear()

    def arrays(self) -> list[pa.Array]:
        """The columns, and a clean slate."""
        self.settle(0)
        found = [pa.concat_arrays(parts) for parts in zip(*self._settled, strict=True)]
        self._settled, self._before = [], 0
        return found
