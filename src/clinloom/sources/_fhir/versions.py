"""Which version of its record an event or a refusal is of, as one number: the greatest is the last.

By meta.lastUpdated, else by a versionId that counts; where those are one or absent, by status: what
is corrected follows what is final. (FHIR R4 2.14.0.5, meta; 10.1.3, Observation.status)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom.sources._fhir import resources as r4
from clinloom.sources._time import iso

RANKS = 8  # more than there are ranks at one time
RANK = {"preliminary": -1, "partial": -1, "amended": 1, "corrected": 1, "appended": 1}
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
        self._spans: list[tuple[int, int, int]] = []

    def note(self, resource: Any, begin: int, end: int) -> None:
        """The events from ``begin`` up to ``end`` are of this resource."""
        meta = resource.meta
        rank = RANK.get(getattr(resource, "status", None) or "", 0)
        version = self._stamp(meta) * RANKS + rank if meta is not None else rank
        if version:
            self._spans.append((begin, end, version))

    def of_refusal(self, resource: Any, reason: str) -> int:
        """The version that tells no fact."""
        rank = BEFORE if reason in NOT_YET else WITHDRAWN
        return self._stamp(resource.meta) * RANKS + rank

    def take(self, rows: int) -> pa.Array:
        """The version of each of ``rows`` events, null where nothing is told; a clean slate."""
        if not self._spans:
            return pa.nulls(rows, pa.int64())
        begins, ends, versions = np.array(self._spans, np.int64).T
        out = np.zeros(rows, np.int64)
        out[_runs(begins, ends)] = np.repeat(versions, ends - begins)
        self._spans = []
        return pa.array(out, mask=out == 0)

    def _stamp(self, meta: r4.Meta | None) -> int:
        if meta is None:
            return 0
        if meta.lastUpdated:
            stamp = iso(meta.lastUpdated, zone=self._zone)
            if stamp is not None:
                return stamp
        written = str(meta.versionId or "")
        return int(written) if written.isdecimal() and len(written) < 18 else 0


def _runs(begins: Sequence[int] | np.ndarray, ends: Sequence[int] | np.ndarray) -> np.ndarray:
    """The positions within the runs."""
    return np.fromiter(itertools.chain.from_iterable(map(range, begins, ends)), np.int64)
