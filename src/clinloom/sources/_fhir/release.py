"""When a fact was known: at its release or its recording, and never before it happened.

Where neither is told: when it happened, or after a delay that the study tells for its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.sources._time import Times, instants
from clinloom.tables import TIME

Told = tuple[str, str, str, int]  # code, rule, action, count


class Known(NamedTuple):
    """When facts were known: ``time``, and ``text``, what of it cannot be read.

    ``earlier``: by how many microseconds before that they may have happened, null where not before;
    ``told``: what the ledger says of it.
    """

    time: pa.Array
    text: pa.Array
    earlier: pa.Array
    told: list[Told]


def known(
    read: Times,
    code: pa.DictionaryArray,
    *,
    made: pa.Array,
    onset: pa.Array,
    zone: str,
    late_after: int,
    delays: Mapping[str, int],
) -> Known:
    """When facts were known (n,) and when they happened.

    ``read``: when they were released or recorded. ``made`` (texts): when a result was made;
    ``onset``: since when a condition, which somebody records, was there. Null: neither of these;
    empty: no release or recording is told, and ``read`` is when the fact happened. Microseconds:
    ``late_after``, ``delays``.
    """
    time, told = read.time, list[Told]()
    happened = pa.nulls(len(time), TIME) if read.begin is None else read.begin
    for texts, names in ((made, RESULT), (onset, RECORD)):
        if texts.null_count == len(texts):
            continue
        taken = instants(texts, zone=zone)
        begun = taken.time if taken.begin is None else pc.coalesce(taken.begin, taken.time)
        waited = pc.subtract(time.cast(pa.int64()), begun.cast(pa.int64()))
        early = pc.less(waited, 0).fill_null(False)
        time = pc.if_else(early, taken.time, time)
        happened = pc.coalesce(begun, happened)
        if names.late is not None:
            late = pc.greater(waited, late_after).fill_null(False)
            told += counted(code, late, names.late, "timed_by_release")
        told += counted(code, early, names.early, names.by)
        untold = pc.equal(texts, "").fill_null(False)
        if pc.any(untold).as_py():
            delay = _delays(code, delays)
            waits = pc.and_(untold, pc.is_valid(delay))
            later = pc.add(time.cast(pa.int64()), pc.fill_null(delay, 0)).cast(time.type)
            happened = pc.if_else(waits, pc.coalesce(happened, time), happened)
            time = pc.if_else(waits, later, time)
            told += counted(code, waits, names.untold, "timed_by_delay")
            told += counted(code, pc.and_not(untold, waits), names.untold, names.by)
    earlier = pc.subtract(time.cast(pa.int64()), happened.cast(pa.int64()))
    if earlier.null_count < len(earlier):
        earlier = pc.if_else(pc.greater(earlier, 0), earlier, pa.scalar(None, pa.int64()))
    return Known(time, read.text, earlier, told)


class _Names(NamedTuple):
    """What the ledger calls it."""

    early: str
    late: str | None
    untold: str
    by: str


RESULT = _Names("released_early", "late_result", "no_release", "timed_by_sample")
RECORD = _Names("recorded_early", None, "no_recording", "timed_by_onset")


def _delays(code: pa.DictionaryArray, delays: Mapping[str, int]) -> pa.Array:
    """Each row's delay, of the first pattern that its code fits; null where none does."""
    names = code.dictionary.to_pylist()
    found = [next((d for p, d in delays.items() if fnmatchcase(n, p)), None) for n in names]
    return pa.array(found, pa.int64()).take(code.indices)


def counted(code: pa.DictionaryArray, rows: pa.Array, rule: str, action: str) -> Iterator[Told]:
    """How many of some rows each code has."""
    some = code.filter(rows) if rows.true_count else code.slice(0, 0)
    for found in some.value_counts().to_pylist():
        yield found["values"], rule, action, found["counts"]
