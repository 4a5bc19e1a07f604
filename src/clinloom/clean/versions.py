"""Several versions of one record: the last one counts, and what is withdrawn is gone.

A record is one of its source and its patient: the same ``source``, ``record_id`` and subject.
Versions that tell no order stay beside each other. What a version under another patient takes back
is told among what the source refused (see ``identity.records``).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.events import Ints
from clinloom.study import RuleModel
from clinloom.tables import REASSIGNED

REQUIRES: str | None = None
ORDER = 5
MIXING = np.uint64(0x9E3779B97F4A7C15)  # an odd number, whose multiples are all different


class Options(RuleModel):
    """Whether only the last version of a record is kept."""


def apply(sheet: Sheet, options: Options) -> None:
    """Refuse earlier versions as `superseded`, those of what was withdrawn as `withdrawn`, and what
    is another patient's now as `reassigned`.

    What was withdrawn stands among what the source refused (``sheet.refused``), with its version.
    """
    version, refused = sheet.column("version"), _withdrawn(sheet)
    if version.null_count == len(version) and not refused.num_rows:
        return
    record = sheet.column("record_id").cast(pa.string())
    gone = events.column(refused, "record_id").cast(pa.string())
    number: Ints = version.fill_null(0).to_numpy()
    of_gone = events.subjects(refused)
    rows = _several(_keys(record, sheet.subject), number, _keys(gone, of_gone))
    if not len(rows):
        return
    record = record.take(pa.array(rows))
    names = pa.concat_arrays([record, gone])
    position, _ = events.coded(names)
    source, sources = sheet.source
    of_refused = _places(sources, events.column(refused, "source"))
    places = np.concatenate([source[rows].astype(np.int64), of_refused])
    key = (position.astype(np.int64) + 1) * (int(places.max(initial=0)) + 2) + places + 1
    _, whose = np.unique(np.concatenate([sheet.subject[rows], of_gone]), return_inverse=True)
    mine = number[rows]
    theirs = events.column(refused, "version").fill_null(0).to_numpy()
    _, key = np.unique(key, return_inverse=True)
    _, key = np.unique(key * len(key) + whose, return_inverse=True)
    last = np.full(int(key.max(initial=-1)) + 1, np.iinfo(np.int64).min)
    ended, left = last.copy(), last.copy()
    elsewhere = pc.equal(events.column(refused, "reason"), REASSIGNED).to_numpy(False)
    np.maximum.at(last, key[: len(rows)], mine)
    np.maximum.at(ended, key[len(rows) :][~elsewhere], theirs[~elsewhere])
    np.maximum.at(left, key[len(rows) :][elsewhere], theirs[elsewhere])
    known = position[: len(rows)] >= 0
    key = key[: len(rows)]
    withdrawn = known & (mine < ended[key])
    reassigned = known & (mine < left[key]) & ~withdrawn
    superseded = known & (mine < last[key]) & ~withdrawn & ~reassigned
    sheet.reject(rows[withdrawn], "withdrawn")
    sheet.reject(rows[reassigned], REASSIGNED)
    sheet.reject(rows[superseded], "superseded")


def _several(record: pa.Array, version: Ints, gone: pa.Array) -> Ints:
    """The rows whose record has several versions, or is among ``gone``, and maybe a few others."""
    found = np.zeros(len(record), bool)
    if version.any():
        place = record.dictionary_encode().indices.to_numpy()
        one = np.zeros(len(record), np.int64)
        one[place] = version  # of each record, any of its versions
        other = place[version != one[place]]
        if len(other):
            differs = np.zeros(len(record), bool)
            differs[other] = True
            found = differs[place]
    if len(gone):
        told = pc.is_in(record, value_set=gone)
        found = found | told.to_numpy(zero_copy_only=False)
    return np.flatnonzero(found)


def _keys(texts: pa.Array, subject: Ints) -> pa.Array:
    """A number for each record of a subject (n,), from its last eight bytes.

    Some share one; but to tell records apart whole would cost more than all other rules.
    """
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
    data = texts.buffers()[2]
    held = np.concatenate([np.zeros(8, np.uint8), np.frombuffer(data or b"", np.uint8)])
    at_each_byte = np.ndarray((len(held) - 7,), "<u8", held, strides=(1,))
    words = at_each_byte[offsets[1:]]
    short = 8 - np.minimum(np.diff(offsets), 8)
    words = np.where(short == 8, 0, words >> (np.minimum(short, 7) * 8).astype(np.uint64))
    return pa.array(words ^ (subject.astype(np.uint64) * MIXING))


def _withdrawn(sheet: Sheet) -> pa.Table:
    refused = sheet.refused
    return refused.filter(refused.column("version").is_valid())


def _places(names: list[str], told: pa.Array) -> Ints:
    """The positions of ``told`` in ``names``; those that are not there stand after them."""
    place = {name: at for at, name in enumerate(names)}
    return np.array([place.get(name, len(names)) for name in told.to_pylist()], np.int64)
