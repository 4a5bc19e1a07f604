"""Rows on their way to their buckets: the shuffle by files that ``workers.cluster`` makes.

A worker sorts what it read into buckets and writes a file with one Arrow record batch a bucket.
Whoever has a bucket then reads that one batch of every file. A subject's bucket is
``subject_id mod buckets``, for subjects are hashes already; without a subject it is bucket 0.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.events import Ints, coded, column, times, valid
from clinloom.store import TableWriter
from clinloom.tables import Table

HELD = 1 << 20  # rows, and
BYTES = 1 << 29  # bytes that a worker holds before it sorts them into buckets
SORTED = 1 << 22  # rows of a bucket that are sorted at once
SLICE = 1 << 19  # sorted rows that are handed on at once
NOTE = b"blocks"  # in a file's schema: the rows of each bucket, and the bytes of all
HASHES = 1 << 63  # subjects lie below
TIES = ("numeric_value", "text_value", "record_id")  # what decides next, before all other columns
NONE = np.iinfo(np.int64).min  # no subject, no time: before all others


def subjects(rows: pa.Table) -> Ints:
    """Each row's subject; the least number where it has none."""
    ids = column(rows, "subject_id")
    present = valid(ids)
    plain = np.frombuffer(ids.buffers()[1], np.int64)[ids.offset : ids.offset + len(ids)]
    return plain if present is None else np.where(present, plain, NONE)


def bucket_of(subject: Ints, buckets: int) -> np.ndarray:
    """The bucket of each subject: ``subject mod buckets``; 0 for a row without one."""
    found = np.mod(subject, buckets).astype(np.int32 if buckets > 1 << 15 else np.int16)
    found[subject < 0] = 0
    return found


class BlockWriter:
    """Writes rows of a declared table into files ``<path>-<n>.arrow``, a block a bucket.

    Each file appears whole or not at all; a task that is tried again writes the same ones.
    """

    def __init__(self, path: Path, table: Table, buckets: int):
        self.path, self.buckets = path, buckets
        self.schema = TableWriter(path, table).schema
        self._held: list[pa.Table] = []
        self._files = 0

    def __enter__(self) -> BlockWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, rows: pa.Table) -> None:
        """Take rows; they must conform to the table's declaration."""
        self._held.append(_shaped(rows, self.schema))
        held = sum(part.num_rows for part in self._held)
        if held >= HELD or sum(part.nbytes for part in self._held) >= BYTES:
            self._flush()

    def _flush(self) -> None:
        rows = _joined(self._held)
        self._held = []
        bucket = bucket_of(subjects(rows), self.buckets)
        counts = np.bincount(bucket, minlength=self.buckets).tolist()
        note = json.dumps({"rows": counts, "bytes": rows.nbytes}).encode()
        rows = rows.take(pa.array(np.argsort(bucket, kind="stable")))
        _write(
            self.path.with_name(f"{self.path.name}-{self._files:03d}.arrow"),
            rows.replace_schema_metadata({NOTE: note}),
            counts,
        )
        self._files += 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and sum(part.num_rows for part in self._held):
            self._flush()


def _write(file: Path, rows: pa.Table, counts: Sequence[int]) -> None:
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    batch = rows.combine_chunks().to_batches()[0]
    try:
        with (
            pa.OSFile(str(temporary), "wb") as out,
            pa.ipc.new_file(out, rows.schema, options=options) as writer,
        ):
            for begin, count in zip(np.cumsum([0, *counts]).tolist(), counts, strict=False):
                writer.write_batch(batch.slice(begin, count))
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _shaped(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema``, absent ones null, words dictionary-encoded."""
    arrays = []
    for field in schema:
        if field.name not in rows.column_names:
            arrays.append(pa.nulls(rows.num_rows, field.type))
            continue
        values = rows.column(field.name)
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(values.type):
            values = values.cast(field.type.value_type).dictionary_encode()
        arrays.append(values if values.type == field.type else values.cast(field.type))
    return pa.table(arrays, names=schema.names)


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def noted(file: Path) -> tuple[list[int], int]:
    """How many rows of each bucket a file of blocks holds, and how many bytes all its rows are."""
    with pa.OSFile(str(file)) as source:
        note = json.loads(pa.ipc.open_file(source).schema.metadata[NOTE])
    return note["rows"], note["bytes"]


def block(file: Path, bucket: int) -> pa.Table:
    """The rows of one bucket in a file of blocks."""
    with pa.OSFile(str(file)) as source:
        batch = pa.ipc.open_file(source).get_batch(bucket)
    return pa.Table.from_batches([batch]).replace_schema_metadata(None)


def renamed(rows: pa.Table, moved: np.ndarray) -> pa.Table:
    """The rows with the subjects of ``moved[0]``, which ascends, called as in ``moved[1]``."""
    ids = subjects(rows)
    at = np.minimum(np.searchsorted(moved[0], ids), len(moved[0]) - 1)
    true = np.where(moved[0][at] == ids, moved[1][at], ids)
    field = rows.schema.field("subject_id")
    column = pa.array(true, field.type, mask=true == NONE if (true == NONE).any() else None)
    return rows.set_column(rows.schema.get_field_index("subject_id"), field, column)


def in_order(files: Sequence[Path], bucket: int) -> Iterator[pa.Table]:
    """A bucket's rows, sorted, in slices and in flat memory.

    A bucket too large to sort at once is read again and again, a range of subjects at a time.
    """
    here, count, size = [], 0, 0.0
    for file in files:
        counts, total = noted(file)
        if counts[bucket]:
            here.append(file)
            count += counts[bucket]
            size += total * counts[bucket] / sum(counts)
    turns = math.ceil(max(count / SORTED, size / (2 * BYTES)))
    for turn in range(turns):
        rows = _joined([_between(block(file, bucket), turn, turns) for file in here])
        if not rows.num_rows:
            continue
        order = sorting(rows)
        for begin in range(0, len(order), SLICE):
            yield rows.take(pa.array(order[begin : begin + SLICE]))


def _between(rows: pa.Table, turn: int, turns: int) -> pa.Table:
    """The rows whose subjects lie in the turn's part of all that there can be."""
    if turns == 1:
        return rows
    part = np.maximum(subjects(rows), 0) // -(-HASHES // turns)
    return rows.filter(pa.array(part == turn))


def sorting(rows: pa.Table) -> Ints:
    """The order of rows by subject, time, code, value, text, record, then all else; nulls first.

    A column that the table does not have is passed over.
    """
    keys = [_ranked(subjects(rows))]
    if "time" in rows.column_names:
        keys.append(_scaled(times(column(rows, "time"))))
    if "code" in rows.column_names:
        positions, words = coded(column(rows, "code"))
        rank = np.empty(len(words) + 1, np.int64)
        rank[sorted(range(len(words)), key=words.__getitem__)] = np.arange(1, len(words) + 1)
        rank[-1] = 0  # where positions are -1: no code
        keys.append(rank[positions])
    order = _argsort(keys)
    same = np.ones(max(len(order) - 1, 0), bool)
    for key in keys:
        same &= np.diff(key[order]) == 0
    near = np.flatnonzero(same)
    if len(near):
        places = np.unique(np.concatenate([near, near + 1]))
        run = np.cumsum(np.concatenate([[True], ~same]))[places]
        order[places] = order[places[_settled(rows, order[places], run)]]
    return order


def _settled(rows: pa.Table, places: Ints, run: Ints) -> Ints:
    """The order of rows that tie in all but these columns, within each run of ties."""
    first = [name for name in TIES if name in rows.column_names]
    rest = [
        name for name in rows.column_names if name not in {"subject_id", "time", "code", *first}
    ]
    some = rows.select([*first, *rest]).take(pa.array(places))
    keys = {"run": pa.array(run)}
    for name in some.column_names:
        values = some.column(name)
        if values.null_count:
            keys[f"{name} there"] = values.is_valid().cast(pa.int8())
        words = pa.types.is_dictionary(values.type)
        keys[name] = values.cast(values.type.value_type) if words else values
    found = pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
    return found.to_numpy().astype(np.int64)


def _ranked(values: Ints) -> Ints:
    """Each value's rank from 0; equal ones mostly stand together."""
    begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    _, rank = np.unique(values[begins], return_inverse=True)
    return np.repeat(rank, np.diff(np.append(begins, len(values))))


def _scaled(time: Ints) -> Ints:
    """Times as small whole numbers in the same order: 0 for none."""
    known = time != NONE
    if not known.any():
        return np.zeros(len(time), np.int64)
    low, high = int(time[known].min()), int(time.max())
    if high - low > 1 << 62:
        return _ranked(time)
    since = np.where(known, time - low, 0)
    return np.where(known, since // max(int(np.gcd.reduce(since)), 1) + 1, 0)


def _argsort(keys: Sequence[Ints]) -> Ints:
    """The order of rows by small whole numbers, the first key first: as one number if they fit."""
    bits = [int(key.max(initial=0)).bit_length() for key in keys]
    if sum(bits) > 63:
        return np.lexsort(keys[::-1])
    one = keys[0]
    for key, width in zip(keys[1:], bits[1:], strict=True):
        one = one << width | key
    return np.argsort(one, kind="stable")
