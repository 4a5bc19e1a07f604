"""An event of a resource whose times are still text, and why there may be none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
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
# Of these and of which version of its resource an event is: when that was updated, its edition.
TYPES = (TEXT, TEXT, TEXT, TEXT, TEXT, pa.float64(), TEXT, TEXT, TEXT, TEXT, pa.int64())
SETTLED = 1 << 11  # events
FEW = 32  # times as many events in columns, among which single ones are put by slices


class Refused(Exception):
    """The resource, or a part of it, is refused: the reason, what it tells all the same, and the
    element that is at fault."""

    def __init__(self, reason: str, told: Sequence[Event] = (), *, field: str | None = None):
        super().__init__(reason)
        self.told, self.field = told, field


class Rows:
    """Events in columns of TYPES; the last two say which version of its resource each is of."""

    def __init__(self) -> None:
        self._single: list[tuple[Any, ...]] = []
        self._settled: list[list[pa.Array]] = []
        self._before = 0

    def __len__(self) -> int:
        return self._before + len(self._single)

    def add(self, events: Iterable[Event], meta: r4.Meta | None, edition: int | None) -> None:
        """Add the events of one resource."""
        updated = meta.lastUpdated if meta is not None else None
        self._single += [(*event, updated, edition) for event in events]

    def weave(self, columns: list[pa.Array], at: np.ndarray, *, among: np.ndarray) -> None:
        """Add the events (n,) of the lines ``at`` in columns, among those (m,) of the lines
        ``among`` that were added one by one since the last were settled."""
        self._before += len(at) + len(among)
        if not self._single:
            self._settled.append(columns)
            return
        single = self._taken()
        if len(among) * FEW > len(at):
            order = pa.array(np.argsort(np.concatenate([among, at]), kind="stable"))
            pairs = zip(single, columns, strict=True)
            self._settled.append([pa.concat_arrays(pair).take(order) for pair in pairs])
            return
        done = 0
        for place, cut in enumerate(np.searchsorted(at, among).tolist()):
            self._settled.append([column.slice(done, cut - done) for column in columns])
            self._settled.append([column.slice(place, 1) for column in single])
            done = cut
        self._settled.append([column.slice(done) for column in columns])

    def settle(self, least: int = SETTLED) -> None:
        """Turn what was added to arrays, where it is that much: while it is in the cache."""
        if len(self._single) >= max(least, 1):
            self._before += len(self._single)
            self._settled.append(self._taken())

    def _taken(self) -> list[pa.Array]:
        single, self._single = self._single, []
        parts = zip(zip(*single, strict=True), TYPES, strict=True)
        return [pa.array(part, kind) for part, kind in parts]

    def arrays(self) -> list[pa.Array]:
        """The columns, and a clean slate."""
        self.settle(0)
        found = [pa.concat_arrays(parts) for parts in zip(*self._settled, strict=True)]
        self._settled, self._before = [], 0
        return found
