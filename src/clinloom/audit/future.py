"""Whether an event at or after the index time reaches a feature: a judge that believes no kernel.

The record is cut at the index time by one comparison of its own, and the features of what is left
are held against those that were committed; then the future is poisoned, and the features' codes are
planted at the index time itself: nothing may change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.audit import Column, Evidence, Finding
from clinloom.audit._figures import Floats, Ints, few

TITLE = (
    "rows computed again from a record that is cut at the prediction moment, and from one whose"
    " future is poisoned, against those that models learn from"
)
BLIND = "what was written afterwards and dated before: it believes the times that the sources tell"
POISON = 9.87e18
PLANTED = 1_000_000  # events at most in a round
Compute = Callable[[pa.Table, pa.Table, Any], Floats]


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a feature that the future changes."""
    for feature, rows in seen.differing.items():
        if rows:
            yield Finding(
                "future",
                feature,
                f"{few(rows)} of {seen.rows_checked:,} rows change with what is known later",
                "the feature knows the future",
                "leave it out, or mend the family that computes it",
            )


def differing(
    events: pa.Table,
    index: pa.Table,
    features: Sequence[Column],
    expected: Floats,
    compute: Compute,
) -> Counter[str]:
    """In how many rows each feature is another without the future, or with a poisoned one.

    ``events``: whole patients', sorted, with the columns that the features read; ``index``
    (subject_id, prediction_time); ``expected`` (n, f): what was committed; ``compute``: the
    families' kernel. Values are compared bit by bit, NaN equal to NaN. A patient's rows are taken
    one at a time, for the future of one is the past of the next.
    """
    subject, time = _whole(events, "subject_id"), _whole(events, "time")
    there = np.asarray(events.column("time").is_valid())
    found = np.zeros((index.num_rows, len(features)), bool)
    for rows in _rounds(_whole(index, "subject_id")):
        part = index.take(pa.array(rows))
        known, moment = _whole(part, "subject_id"), _whole(part, "prediction_time")
        order = np.argsort(known)
        at = order[np.minimum(np.searchsorted(known[order], subject), len(known) - 1)]
        future = there & (known[at] == subject) & (time >= moment[at])
        past = events.filter(pa.array(~future))
        worse = _sorted(_poisoned(events, future), _planted(known, moment, events, features))
        for record in (past, worse):
            made = compute(record, part, features)
            same = (made == expected[rows]) | (np.isnan(made) & np.isnan(expected[rows]))
            found[rows] |= ~same
    counts = zip(features, found.sum(axis=0).tolist(), strict=True)
    return Counter({feature.name: n for feature, n in counts if n})


def _whole(table: pa.Table, name: str) -> Ints:
    """A column of numbers or times as int64, 0 where null."""
    column = table.column(name).cast(pa.int64()).fill_null(0)
    found: Ints = column.to_numpy()
    return found


def _rounds(subject: Ints) -> list[Ints]:
    """The rows in rounds that hold a patient at most once."""
    order = np.argsort(subject, kind="stable")
    _, first, count = np.unique(subject[order], return_index=True, return_counts=True)
    turn = np.arange(len(subject)) - np.repeat(first, count)
    return [np.sort(order[turn == n]) for n in range(int(count.max(initial=0)))]


def _poisoned(events: pa.Table, future: np.ndarray) -> pa.Table:
    at = events.column_names.index("numeric_value")
    value = events.column("numeric_value").combine_chunks().cast(pa.float64())
    poison = pa.array(np.full(len(value), POISON))
    made = pc.if_else(pa.array(future), poison, value)
    return events.set_column(at, "numeric_value", made)


def _planted(subject: Ints, moment: Ints, events: pa.Table, features: Sequence[Column]) -> pa.Table:
    """The features' codes, at the index time (spread over the list where there are too many)."""
    codes = list(dict.fromkeys(feature.code for feature in features))
    codes = codes[:: 1 + len(codes) * len(subject) // PLANTED]
    made = {
        "subject_id": pa.array(np.repeat(subject, len(codes))),
        "time": pa.array(np.repeat(moment, len(codes))),
        "code": pa.array(codes * len(subject), pa.string()),
        "numeric_value": pa.array(np.full(len(codes) * len(subject), POISON)),
    }
    arrays = [
        made[f.name].cast(f.type) if f.name in made else pa.nulls(len(made["code"]), f.type)
        for f in events.schema
    ]
    return pa.table(arrays, schema=events.schema)


def _sorted(*parts: pa.Table) -> pa.Table:
    events = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    subject, time = _whole(events, "subject_id"), _whole(events, "time")
    there = np.asarray(events.column("time").is_valid())
    return events.take(pa.array(np.lexsort((time, there, subject))))
