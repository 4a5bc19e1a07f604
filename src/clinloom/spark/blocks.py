"""Rows on their way to their buckets: Arrow blocks, and the order in which a bucket keeps its rows.

A worker cuts what it read into slices, a packed block of one bucket each; Spark's shuffle brings
the slices of a bucket together, and they come out sorted. Where links show that some subjects are
others, slices are renamed and cut anew on their way. A subject's bucket
is ``subject_id mod buckets``, for subjects are hashes already; a row without one (a refusal) goes
where its file and place fall.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.events import Ints, coded, column, times, valid
from clinloom.spark.sums import packed, unpacked
from clinloom.spark.temporary import temporary_folder

HELD = 1 << 20  # rows, and
BYTES = 1 << 27  # bytes that a worker holds before it cuts them
ROW = 1 << 20  # bytes of a slice, before compression: larger values burden the JVM's collector
MEMORY = 1 << 29  # bytes, and
SPILT = 1 << 26  # bytes of a file on the worker's own disk, before compression
SORTED = 1 << 22  # rows of a bucket that are sorted at once
SLICE = 1 << 19  # sorted rows that are handed on at once
RANGES = 64  # the parts of a bucket too large to sort at once
HASHES = 1 << 63  # subjects lie below
TIES = ("numeric_value", "text_value", "record_id")  # what decides next, before all other columns
NONE = np.iinfo(np.int64).min  # no subject, no time: before all others


def subjects(rows: pa.Table) -> Ints:
    """Each row's subject; the least number where it has none."""
    ids = column(rows, "subject_id")
    present = valid(ids)
    plain = np.frombuffer(ids.buffers()[1], np.int64)[ids.offset : ids.offset + len(ids)]
    return plain if present is None else np.where(present, plain, NONE)


def bucket_of(rows: pa.Table, buckets: int) -> np.ndarray:
    """The bucket of each row (n,)."""
    subject = subjects(rows)
    found = np.mod(subject, buckets).astype(np.int32 if buckets > 1 << 15 else np.int16)
    homeless = np.flatnonzero(subject < 0)
    if len(homeless):
        found[homeless] = _place(rows.take(pa.array(homeless))) % buckets
    return found


def _place(rows: pa.Table) -> Ints:
    """A number for each row that says where it was found, the same however files are grouped."""
    out = np.zeros(rows.num_rows, np.int64)
    if "file" in rows.column_names:
        at, names = coded(column(rows, "file"))
        sums = np.array([*(zlib.crc32(name.encode()) for name in names), 0], np.int64)
        out += sums[at]
    if "position" in rows.column_names:
        out += pc.fill_null(column(rows, "position"), 0).to_numpy(zero_copy_only=False) & 0xFFFFFF
    return out


class Cutter:
    """Collects rows of one table and hands them on as slices: a packed block of one bucket.

    ``change``: what becomes of them first, many at once.
    """

    def __init__(
        self,
        schema: pa.Schema,
        buckets: int,
        change: Callable[[pa.Table], pa.Table] = lambda rows: rows,
    ):
        self.schema, self.buckets, self.change = schema, buckets, change
        self._held: list[pa.Table] = []
        self._rows = self._bytes = 0

    def add(self, rows: pa.Table) -> Iterator[tuple[int, int, int, bytes]]:
        """Take rows, which must conform to the schema.

        Yields (bucket, rows, size, block) when there are enough.
        """
        shaped = _shaped(rows, self.schema)
        self._held.append(shaped)
        self._rows, self._bytes = self._rows + shaped.num_rows, self._bytes + shaped.nbytes
        if self._rows >= HELD or self._bytes >= BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What is still held."""
        if self._rows:
            whole = _telling(self.change(_joined(self._held)))
            most = max(1, ROW * whole.num_rows // max(whole.nbytes, 1))
            for bucket, part in cut(whole, self.buckets):
                for begin in range(0, part.num_rows, most):
                    for some in _halved(part.slice(begin, most)):
                        yield bucket, some.num_rows, some.nbytes, packed(some)
        self._held, self._rows, self._bytes = [], 0, 0


def _halved(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows in parts of at most two slices' bytes, however uneven they are; or row by row."""
    plain = [c for c in rows.columns if not pa.types.is_dictionary(c.type)]  # words are all's
    if rows.num_rows < 2 or sum(column.nbytes for column in plain) <= 2 * ROW:
        yield rows
        return
    half = rows.num_rows // 2
    for part in (rows.slice(0, half), rows.slice(half)):
        yield from _halved(part)


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
    whole = pa.concat_tables(parts, promote_options="default")
    return whole.unify_dictionaries().combine_chunks()


def _telling(rows: pa.Table) -> pa.Table:
    """The rows without columns that are null in all of them: they need not travel."""
    names = rows.column_names
    empty = {n for n in names if n != "subject_id" and rows.column(n).null_count == rows.num_rows}
    return rows.drop_columns(sorted(empty))


def opened(block: bytes | pa.Buffer, schema: pa.Schema) -> pa.Table:
    """The rows of a slice's block, with every column of ``schema``."""
    return _shaped(unpacked(block), schema)


def cut(rows: pa.Table, buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each bucket that has any, in the order they came; of a table without subjects,
    all in bucket 0."""
    if "subject_id" not in rows.column_names:
        yield 0, rows
        return
    bucket = bucket_of(rows, buckets)
    counts = np.bincount(bucket, minlength=buckets)
    rows = rows.take(pa.array(np.argsort(bucket, kind="stable"))).combine_chunks()
    ends = np.cumsum(counts)
    for number in np.flatnonzero(counts).tolist():
        count = int(counts[number])
        yield number, _compacted(rows.slice(int(ends[number]) - count, count))


def _compacted(rows: pa.Table) -> pa.Table:
    """The rows, without words that none of them uses."""
    for at, field in enumerate(rows.schema):
        if not pa.types.is_dictionary(field.type) or not rows.num_rows:
            continue
        words = rows.column(at).chunk(0)
        if len(words.dictionary) > max(16, rows.num_rows // 8):
            rows = rows.set_column(at, field, _used(words))
    return rows


def _used(words: pa.DictionaryArray) -> pa.DictionaryArray:
    found, back = np.unique(pc.fill_null(words.indices, -1).to_numpy(), return_inverse=True)
    gap = int(len(found) > 0 and found[0] < 0)
    indices = pa.array((back - gap).astype(np.int32), mask=(back < gap) if gap else None)
    return pa.DictionaryArray.from_arrays(indices, words.dictionary.take(pa.array(found[gap:])))


def renamed(rows: pa.Table, moved: Iterator[tuple[Ints, Ints]]) -> pa.Table:
    """The rows with subjects called as they truly are.

    ``moved`` gives parts of (own, true), each sorted by ``own``; a subject is in one of them.
    """
    ids = subjects(rows)
    begins = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    own = ids[begins]  # rows of a patient mostly stand together: fewer to look up
    true = own.copy()
    for known, names in moved:
        at = np.minimum(np.searchsorted(known, own), len(known) - 1)
        true = np.where(known[at] == own, names[at], true)
    true = np.repeat(true, np.diff(np.append(begins, len(ids))))
    field = rows.schema.field("subject_id")
    column = pa.array(true, field.type, mask=true == NONE if (true == NONE).any() else None)
    return rows.set_column(rows.schema.get_field_index("subject_id"), field, column)


class Bucket:
    """The slices of one table and bucket, as they come; then its rows, sorted, in flat memory.

    More rows than can be sorted at once go to the worker's own disk, parted by ranges of subjects,
    and are sorted range by range.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._blocks: list[bytes] = []
        self._rows = self._size = 0
        self._spilt: list[Path] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, block: bytes, rows: int, size: int) -> None:
        """Take a slice's block; ``size``: its bytes when it is unpacked."""
        self._blocks.append(block)
        self._rows, self._size = self._rows + rows, self._size + size
        if self._rows > SORTED or self._size > MEMORY:
            self._spill()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = temporary_folder()
        some: list[pa.Table] = []
        size = 0
        for number, block in enumerate(self._blocks, 1):
            some.append(unpacked(block))
            size += some[-1].nbytes
            if number == len(self._blocks) or size >= SPILT:
                file = Path(self._folder.name) / f"{len(self._spilt)}.arrow"
                _parted(_joined(some), file)
                self._spilt.append(file)
                some, size = [], 0
        self._blocks, self._rows, self._size = [], 0, 0

    def sorted(self) -> Iterator[pa.Table]:
        """The rows in the order of :func:`sorting`, in slices."""
        for rows in self._in_order():
            yield _shaped(rows, self.schema)

    def _in_order(self) -> Iterator[pa.Table]:
        if self._folder is None:
            if self._blocks:
                yield from _slices(_joined([unpacked(block) for block in self._blocks]))
            return
        with self._folder, ExitStack() as held:
            self._spill()
            opened = [
                pa.ipc.open_file(held.enter_context(pa.OSFile(str(file)))) for file in self._spilt
            ]
            for part in range(RANGES):
                batches = [spilt.get_batch(part) for spilt in opened]
                rows = _joined([pa.Table.from_batches([batch]) for batch in batches])
                if rows.num_rows:
                    yield from _slices(rows)


def _slices(rows: pa.Table) -> Iterator[pa.Table]:
    order = sorting(rows)
    for begin in range(0, len(order), SLICE):
        yield rows.take(pa.array(order[begin : begin + SLICE]))


def _parted(rows: pa.Table, file: Path) -> None:
    """Write the rows with a record batch for each range of subjects."""
    part = np.maximum(subjects(rows), 0) // -(-HASHES // RANGES)
    counts = np.bincount(part, minlength=RANGES).tolist()
    rows = rows.take(pa.array(np.argsort(part, kind="stable"))).combine_chunks()
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    batch = rows.to_batches()[0]
    with (
        pa.OSFile(str(file), "wb") as out,
        pa.ipc.new_file(out, rows.schema, options=options) as writer,
    ):
        for begin, count in zip(np.cumsum([0, *counts]).tolist(), counts, strict=False):
            writer.write_batch(batch.slice(begin, count))


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
    order: Ints = found.to_numpy().astype(np.int64)
    return order


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
