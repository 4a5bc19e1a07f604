"""Whose a record is: the patient of whom its last version tells.

A later version may name another patient, where a mix-up was corrected. Cleaning sees a patient at a
time, so it is told beforehand what a version under another patient takes back: by a row among what
the source refused, of the stage ``TAKEN_BACK``, with that version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.identity.subjects import MASK, subjects
from clinloom.tables import REASSIGNED, REFUSED, TAKEN_BACK, Column, Table

TAIL = 128  # bytes of a record's name
MIXING = np.uint64(0x9E3779B97F4A7C15)  # an odd number, whose multiples are all different
RECORDS = Table(
    "records",
    "of whom the versions of each record tell",
    (
        Column("subject_id", pa.int64(), "the record's hash, by which its rows meet", False),
        Column("whose", pa.int64(), "the hash of the identifier of whom it tells", False),
    ),
    ("subject_id",),
)
VERSIONS = Table(
    "versions",
    "versions of records that tell of several patients",
    (
        Column("subject_id", pa.int64(), "of whom it tells", False),
        Column("source", pa.string(), "the source's name in the study"),
        Column("record_id", pa.string(), "the record"),
        Column("version", pa.int64(), "the last of a record is the greatest", False),
        Column("fact", pa.bool_(), "whether it tells a fact", False),
    ),
)


def claims(parcel: Mapping[str, pa.Table]) -> pa.Table:
    """Of whom the records of a parcel tell (RECORDS): its events and refusals with a version."""
    parts = [RECORDS.empty]
    for name in ("events", "rejected"):
        rows = parcel.get(name)
        if rows is None or "version" not in rows.column_names:
            continue
        if rows.column("version").null_count == rows.num_rows:
            continue
        rows = _whole(rows)
        rows = rows.filter(pc.is_valid(rows.column("version")))
        record, patient = _keys(rows), rows.column("subject_id").to_numpy()
        if len(record):
            other = (record[1:] != record[:-1]) | (patient[1:] != patient[:-1])
            fresh = np.flatnonzero(np.append(True, other))  # a record's events stand together
            parts.append(pa.table([record[fresh], patient[fresh]], schema=RECORDS.arrow))
    return pa.concat_tables(parts)


def contested(claimed: Iterable[pa.Table]) -> np.ndarray:
    """The hashes of the records that tell of several patients, ascending."""
    rows = pa.concat_tables([RECORDS.empty, *(part.cast(RECORDS.arrow) for part in claimed)])
    record, patient = (rows.column(n).to_numpy() for n in RECORDS.arrow.names)
    order = np.argsort(record, kind="stable")
    record, patient = record[order], patient[order]
    return np.unique(record[1:][(record[1:] == record[:-1]) & (patient[1:] != patient[:-1])])


def versions(rows: pa.Table, among: np.ndarray, *, fact: bool) -> pa.Table:
    """The versions (VERSIONS) of the records with these hashes; ``rows``: ACQUIRED or REFUSED."""
    rows = _whole(rows)
    some = rows.filter(pa.array(np.isin(_keys(rows), among)))
    columns = [some.column(name) for name in VERSIONS.arrow.names[:3]]
    columns += [pc.fill_null(some.column("version"), 0), pa.repeat(fact, some.num_rows)]
    columns = [c.cast(f.type) for c, f in zip(columns, VERSIONS.arrow, strict=True)]
    return pa.table(columns, schema=VERSIONS.arrow)


def taken_back(told: pa.Table) -> pa.Table:
    """What cleaning is told (REFUSED): whose versions of records another patient's last one ends.

    ``told``: all VERSIONS of records that tell of several patients. Of versions that tell no order
    each stays.
    """
    return REFUSED.rows(_taken_back(told))


def _taken_back(told: pa.Table) -> Iterator[dict[str, Any]]:
    held: dict[tuple[str, str], dict[int, tuple[int, bool]]] = {}
    columns = (told.column(name).to_pylist() for name in VERSIONS.arrow.names)
    for subject, source, record, version, fact in zip(*columns, strict=True):
        mine = held.setdefault((source, record), {})
        mine[subject] = max(mine.get(subject, (version, fact)), (version, fact))
    for (source, record), each in held.items():
        last, fact = max(each.values())
        told_so = {"source": source, "record_id": record, "stage": TAKEN_BACK, "version": last}
        for subject, (version, _) in each.items():
            if version < last:
                reason = REASSIGNED if fact else "withdrawn"
                yield {**told_so, "subject_id": subject, "reason": reason}


def corrected(events: pa.Table, refused: pa.Table) -> pa.Table:
    """What is refused (REFUSED) of several patients, and what their records' versions take back.

    ``events`` (ACQUIRED), ``refused`` (REFUSED): all that a request tells.
    """
    found = contested([claims({"events": events, "rejected": refused})])
    if not len(found):
        return refused
    parts = [versions(events, found, fact=True), versions(refused, found, fact=False)]
    return pa.concat_tables([refused, taken_back(pa.concat_tables(parts))])


def refusals(refused: pa.Table) -> pa.Table:
    """What the sources themselves refused."""
    return refused.filter(pc.not_equal(refused.column("stage"), TAKEN_BACK))


def _whole(rows: pa.Table) -> pa.Table:
    """The rows that name a record and a patient."""
    named = pc.and_(*(pc.is_valid(rows.column(n)) for n in ("record_id", "subject_id")))
    return rows if pc.all(named).as_py() else rows.filter(named)


def _keys(rows: pa.Table) -> np.ndarray:
    """The hash of each row's record (n,), which is one of its source; int64, not negative."""
    record = rows.column("record_id").cast(pa.string())
    found = [_mixed(part) for part in record.chunks]
    source = pc.fill_null(subjects(rows.column("source")), 0).to_numpy()
    keys: np.ndarray = np.concatenate([np.zeros(0, np.int64), *found]) ^ source
    return keys


def _mixed(texts: pa.Array) -> np.ndarray:
    """A number for each text (n,), of its last ``TAIL`` bytes: a tenth of what ``hashed`` takes.

    Two that share one cost a look at their names, no more.
    """
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
    held = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    held = np.concatenate([np.zeros(8, np.uint8), held])
    at_each_byte = np.ndarray((len(held) - 7,), "<u8", held, strides=(1,))
    lengths, ends = np.diff(offsets), offsets[1:]
    mixed = lengths.astype(np.uint64)
    for behind in range(0, min(int(lengths.max(initial=0)), TAIL), 8):
        left = np.clip(lengths - behind, 0, 8)
        words = at_each_byte[np.maximum(ends - behind, 0)]
        words = words >> (8 * np.minimum(8 - left, 7)).astype(np.uint64)
        more = (mixed ^ words) * MIXING
        mixed = np.where(left > 0, more ^ (more >> np.uint64(32)), mixed)
    return (mixed & MASK).view(np.int64)
