"""When a result was known: at its release, and never before it was made.

Where no release is told: with its sample, or after a delay that the study tells for its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.sources._time import instants

Told = tuple[str, str, str, int]  # code, rule, action, count


def known(
    moment: pa.Array,
    happened: pa.Array,
    code: pa.DictionaryArray,
    *,
    zone: str,
    late_after: int,
    delays: Mapping[str, int],
) -> tuple[pa.Array, list[Told]]:
    """The moments (n,) at which results were known, and what the ledger says of it.

    ``moment``: of release where ``happened`` (texts) tells when the result was made, of the sample
    where it is empty; where it is null, of anything else. Microseconds: ``late_after``, ``delays``.
    """
    if happened.null_count == len(happened):
        return moment, []
    taken = instants(happened, zone=zone).time
    waited = pc.subtract(moment.cast(pa.int64()), taken.cast(pa.int64()))
    late = pc.greater(waited, late_after).fill_null(False)
    early = pc.less(waited, 0).fill_null(False)
    moment = pc.if_else(early, taken, moment)
    told = [*_counts(code, late, "late_result", "timed_by_release")]
    told += _counts(code, early, "released_early", "timed_by_sample")
    unreleased = pc.equal(happened, "").fill_null(False)
    if pc.any(unreleased).as_py():
        delay = _delays(code, delays)
        waits = pc.and_(unreleased, pc.is_valid(delay))
        later = pc.add(moment.cast(pa.int64()), pc.fill_null(delay, 0)).cast(moment.type)
        moment = pc.if_else(waits, later, moment)
        told += _counts(code, waits, "no_release", "timed_by_delay")
        told += _counts(code, pc.and_not(unreleased, waits), "no_release", "timed_by_sample")
    return moment, told


def _delays(code: pa.DictionaryArray, delays: Mapping[str, int]) -> pa.Array:
    """Each row's delay, of the first pattern that its code fits; null where none does."""
    names = code.dictionary.to_pylist()
    found = [next((d for p, d in delays.items() if fnmatchcase(n, p)), None) for n in names]
    return pa.array(found, pa.int64()).take(code.indices)


def _counts(code: pa.DictionaryArray, rows: pa.Array, rule: str, action: str) -> Iterator[Told]:
    for found in code.filter(rows).value_counts().to_pylist():
        yield found["values"], rule, action, found["counts"]
