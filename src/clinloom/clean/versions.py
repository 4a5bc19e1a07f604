"""Several versions of one record: the last one counts, and what is withdrawn is gone.

A record is one of its source: the same ``source`` and ``record_id``. Versions that tell no order
stay beside each other.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.events import Ints
from clinloom.study import RuleModel

REQUIRES: str | None = None
ORDER = 5


class Options(RuleModel):
    """Whether only the last version of a record is kept."""


def apply(sheet: Sheet, options: Options) -> None:
    """Refuse earlier versions as `superseded`, and those of what was withdrawn as `withdrawn`.

    What was withdrawn stands among what the source refused (``sheet.refused``), with its version.
    """
    version, refused = sheet.column("version"), _withdrawn(sheet)
    told = version.null_count < len(version)
    if not told and not refused.num_rows:
        return
    record = sheet.column("record_id").cast(pa.string())
    gone = events.column(refused, "record_id").cast(pa.string())
    if told:
        rows = np.arange(sheet.rows)
    else:
        rows = np.flatnonzero(pc.is_in(record, value_set=gone).to_numpy(zero_copy_only=False))
        record = record.take(pa.array(rows))
    names = pa.concat_arrays([record, gone])
    position, _ = events.coded(names)
    source, sources = sheet.source
    of_refused = _places(sources, events.column(refused, "source"))
    places = np.concatenate([source[rows].astype(np.int64), of_refused])
    key = (position.astype(np.int64) + 1) * (int(places.max(initial=0)) + 2) + places + 1
    mine = pc.fill_null(version, 0).to_numpy()[rows]
    theirs = pc.fill_null(events.column(refused, "version"), 0).to_numpy()
    _, key = np.unique(key, return_inverse=True)
    last = np.full(int(key.max(initial=-1)) + 1, np.iinfo(np.int64).min)
    ended = last.copy()
    np.maximum.at(last, key[: len(rows)], mine)
    np.maximum.at(ended, key[len(rows) :], theirs)
    known = position[: len(rows)] >= 0
    key = key[: len(rows)]
    withdrawn = known & (mine < ended[key])
    superseded = known & (mine < last[key]) & ~withdrawn
    sheet.reject(rows[withdrawn], "withdrawn")
    sheet.reject(rows[superseded], "superseded")


def _withdrawn(sheet: Sheet) -> pa.Table:
    refused = sheet.refused
    return refused.filter(refused.column("version").is_valid())


def _places(names: list[str], told: pa.Array) -> Ints:
    """The positions of ``told`` in ``names``; those that are not there stand after them."""
    place = {name: at for at, name in enumerate(names)}
    return np.array([place.get(name, len(names)) for name in told.to_pylist()], np.int64)
