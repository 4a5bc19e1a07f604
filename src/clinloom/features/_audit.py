"""The leakage audit: does any feature change when the future is taken away, or poisoned?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.features._feature import Feature

POISON = 9.87e18
PLANTED = 1_000_000  # events at most in a round


def audit(events: pa.Table, index: pa.Table, features: Sequence[Feature]) -> dict[str, int]:
    """Recompute every row from a record whose future is absent, and from one that is poisoned.

    Arguments as for ``features.compute``. A patient's rows are taken one at a time, for the
    future of one is the past of the next. Poisoned: events at or after the index time get an
    absurd value, and the features' codes are planted at the index time itself.

    Answers ``rows_checked`` and ``rows_differing``, which must be 0; values are compared bit by
    bit, NaN equal to NaN.
    """
    from clinloom.features import columns, matrix

    told = columns(dict.fromkeys(feature.family for feature in features))
    events = events.select([name for name in told if name in events.column_names])
    index = index.select(["subject_id", "prediction_time"])
    expected = matrix(events, index, features)
    subject, time = ev.subjects(events), ev.times(ev.column(events, "time"))
    position, codes = ev.coded(ev.column(events, "code"))
    code = _codes(position, codes)
    value = ev.numbers(ev.column(events, "numeric_value"))
    differing = np.zeros(index.num_rows, bool)
    for rows in _rounds(ev.subjects(index)):
        part = index.take(pa.array(rows))
        moment = ev.times(ev.column(part, "prediction_time"))
        order = np.argsort(ev.subjects(part))
        known = ev.subjects(part)[order]
        at = np.minimum(np.searchsorted(known, subject), len(known) - 1)
        future = (known[at] == subject) & (time >= moment[order][at])

        past = events.filter(pa.array(~future))
        poisoned = _table(subject, time, code, np.where(future, POISON, value))
        for name in events.column_names[len(poisoned.column_names) :]:
            poisoned = poisoned.append_column(name, events.column(name))
        planted = _planted(ev.subjects(part), moment, features)
        worse = _sorted(pa.concat_tables([poisoned, planted], promote_options="default"))
        for record in (past, worse):
            found = matrix(record, part, features)
            same = (found == expected[rows]) | (np.isnan(found) & np.isnan(expected[rows]))
            differing[rows] |= ~same.all(axis=1)
    return {"rows_checked": index.num_rows, "rows_differing": int(differing.sum())}


def _rounds(subject: ev.Ints) -> list[np.ndarray]:
    """The rows in rounds that hold a patient at most once."""
    order = np.argsort(subject, kind="stable")
    sorted_ = subject[order]
    _, first, count = np.unique(sorted_, return_index=True, return_counts=True)
    turn = np.arange(len(subject)) - np.repeat(first, count)
    return [np.sort(order[turn == n]) for n in range(int(count.max(initial=0)))]


def _codes(position: np.ndarray, codes: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(position), pa.array(codes, pa.string()))


def _table(subject: ev.Ints, time: ev.Ints, code: pa.Array, value: ev.Floats) -> pa.Table:
    columns = [pa.array(subject), ev.timestamps(time), code, pa.array(value, mask=np.isnan(value))]
    return pa.table(columns, names=["subject_id", "time", "code", "numeric_value"])


def _planted(subject: ev.Ints, moment: ev.Ints, features: Sequence[Feature]) -> pa.Table:
    """The features' codes, at the index time (spread over the list where there are too many)."""
    codes = list(dict.fromkeys(feature.code for feature in features))
    codes = codes[:: 1 + len(codes) * len(subject) // PLANTED]
    names = _codes(np.tile(np.arange(len(codes), dtype=np.int32), len(subject)), codes)
    time = np.repeat(moment, len(codes))
    poison = np.full(len(time), POISON)
    return _table(np.repeat(subject, len(codes)), time, names, poison)


def _sorted(events: pa.Table) -> pa.Table:
    events = events.unify_dictionaries().combine_chunks()
    subject, time = ev.subjects(events), ev.times(ev.column(events, "time"))
    return events.take(pa.array(np.lexsort((time, subject))))
