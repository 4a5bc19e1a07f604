"""Which version of its record an event or a refusal is of, as one number: the greatest is the last.

By meta.lastUpdated, else by a versionId that counts; where those are one or absent, by status: what
is corrected follows what is final. (FHIR R4 2.14.0.5, meta; 10.1.3, Observation.status)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from clinloom.sources._fhir import resources as r4
from clinloom.sources._time import instants, iso
from clinloom.tables import TIME

RANKS = 8  # more than there are ranks at one time
DIGITS = 18  # of a number that, times the ranks, fits its 64 bits
RANK = {"preliminary": -1, "partial": -1, "amended": 1, "corrected": 1, "appended": 1}
RANKED = frozenset({r4.Observation, r4.DiagnosticReport})
BEFORE, WITHDRAWN = -2, 2  # no fact yet, and none any more
NOT_YET = frozenset(
    {
        "registered",
        "preparation",
        "planned",
        "draft",
        "proposal",
        "plan",
        "option",
        "intended",
        "provisional",
        "differential",
        "unconfirmed",
        "in_progress",
        "on_hold",
    }
)


class Versions:
    """The versions of the events that were read so far."""

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self._numbers: dict[int, int] = {}
        self._ranks: dict[int, int] = {}

    def note(self, resource: Any, begin: int, end: int) -> None:
        """The events from ``begin`` up to ``end`` are of this resource."""
        meta = resource.meta
        if meta is not None and meta.versionId and not meta.lastUpdated:
            self._numbers.update(dict.fromkeys(range(begin, end), _number(meta)))
        if type(resource) in RANKED and resource.status in RANK:
            self._ranks.update(dict.fromkeys(range(begin, end), RANK[resource.status]))

    def of_refusal(self, resource: Any, reason: str) -> int:
        """The version that tells no fact."""
        meta = resource.meta
        stamp = iso(meta.lastUpdated, zone=self._zone) if meta is not None else None
        rank = BEFORE if reason in NOT_YET else WITHDRAWN
        return (_number(meta) if stamp is None else stamp) * RANKS + rank

    def take(self, updated: pa.Array) -> pa.Array:
        """The version of each event, null where nothing is told; a clean slate.

        ``updated``: when its resource was, as text.
        """
        rows, some = len(updated), updated.null_count < len(updated)
        if not (some or self._numbers or self._ranks):
            return pa.nulls(rows, pa.int64())
        version = np.zeros(rows, np.int64)
        if some:
            version += _moments(updated, self._zone).cast(pa.int64()).fill_null(0).to_numpy()
        version[_at(self._numbers)] = _values(self._numbers)
        version *= RANKS
        version[_at(self._ranks)] += _values(self._ranks)
        self._numbers, self._ranks = {}, {}
        return pa.array(version, mask=version == 0)


def _moments(texts: pa.Array, zone: str) -> pa.Array:
    """Nearly all differ and are instants, so that they are read at once where they are."""
    try:
        return texts.cast(TIME)
    except pa.ArrowInvalid:
        return instants(texts, zone=zone).time


def _at(places: dict[int, int]) -> np.ndarray:
    return np.fromiter(places, np.int64, len(places))


def _values(places: dict[int, int]) -> np.ndarray:
    return np.fromiter(places.values(), np.int64, len(places))


def _number(meta: r4.Meta | None) -> int:
    """A versionId that counts, else 0."""
    written = str(meta.versionId or "") if meta is not None else ""
    return int(written) if written.isdecimal() and len(written) < DIGITS else 0
