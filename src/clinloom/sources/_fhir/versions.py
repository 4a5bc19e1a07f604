"""Which version of its record an event or a refusal is of, as one number: the greatest is the last.

By meta.lastUpdated, else by a versionId that counts; where those are one or absent, by status: what
is corrected follows what is final. (FHIR R4 2.14.0.5, meta; 10.1.3, Observation.status)
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.sources._fhir import resources as r4
from clinloom.sources._time import instants, iso

RANKS = 8  # more than there are ranks at one time
DIGITS = 18  # of a number that, times the ranks, fits its 64 bits
RANK = {"preliminary": -1, "partial": -1, "amended": 1, "corrected": 1, "appended": 1}
RANKED = (r4.Observed, r4.DiagnosticReport)
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


def edition(resource: Any) -> int | None:
    """What tells a resource's version beside its meta.lastUpdated; None: nothing does."""
    meta, number = resource.meta, 0
    if meta is not None and meta.versionId and not meta.lastUpdated:
        number = _number(meta)
    ranked = isinstance(resource, RANKED)
    return number * RANKS + (RANK.get(resource.status, 0) if ranked else 0) or None


def of_refusal(resource: Any, reason: str, zone: str) -> int:
    """The version that tells no fact."""
    meta = resource.meta
    rank = BEFORE if reason in NOT_YET else WITHDRAWN
    if meta is None or not meta.lastUpdated:
        return _number(meta) * RANKS + rank
    return (iso(meta.lastUpdated, zone=zone) or 0) * RANKS + rank


def versions(updated: pa.Array, editions: pa.Array, zone: str) -> pa.Array:
    """The version of each event, null where nothing is told.

    ``updated``: when its resource was, as text.
    """
    rows = len(updated)
    if updated.null_count == rows and editions.null_count == rows:
        return pa.nulls(rows, pa.int64())
    version = editions.fill_null(0).to_numpy()
    if updated.null_count < rows:
        read = instants(updated, zone=zone)
        moments = read.time if read.begin is None else pc.coalesce(read.begin, read.time)
        version = moments.cast(pa.int64()).fill_null(0).to_numpy() * RANKS + version
    return pa.array(version, mask=version == 0)


def _number(meta: r4.Meta | None) -> int:
    """A versionId that counts, else 0."""
    written = str(meta.versionId or "") if meta is not None else ""
    return int(written) if written.isdecimal() and len(written) < DIGITS else 0
