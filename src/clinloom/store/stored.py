"""A committed table, and the only way to read one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address
from clinloom.store.writer import DICTIONARY

ONE = 0  # the bucket of what is not bucketed
EVERYTHING = -(1 << 63), (1 << 63) - 1  # bounds of a group of rows that tells none


@dataclass(frozen=True)
class Part:
    """A file of a table: its physical name within the table's folder, and what it holds.

    ``name`` is what readers ask for (``scorer/arrays.npz``; a table's parts have none); ``file``
    bears the mark of the attempt that wrote it. A ``folder`` was written by Spark.
    """

    file: str
    bucket: int = ONE
    rows: int = 0
    bytes: int = 0
    name: str = ""

    def plain(self) -> list[Any]:
        """As the manifest and receipts keep it."""
        return [self.file, self.bucket, self.rows, self.bytes, self.name]


@dataclass(frozen=True)
class Stored:
    """A committed table (or other output): where it lies, the key it came from, and its parts."""

    name: str
    place: Address
    key: str
    rows: int | None = None
    parts: tuple[Part, ...] = ()

    def files(self, bucket: int | None = None) -> list[Address]:
        """The addresses of its Parquet files: all, or those of a bucket."""
        chosen = [p for p in self.parts if bucket is None or p.bucket == bucket]
        return [self.place / part.file for part in chosen if not part.name]

    def buckets(self) -> dict[int, list[Address]]:
        """The addresses of its files by bucket, ascending; an empty bucket has none."""
        out: dict[int, list[Address]] = {}
        for part in sorted(self.parts, key=lambda p: (p.bucket, p.file)):
            out.setdefault(part.bucket, []).append(self.place / part.file)
        return out

    def file(self, name: str) -> Address:
        """The address of the output that readers call ``name``. Raises StoreError."""
        for part in self.parts:
            if part.name == name:
                return self.place / part.file
        raise StoreError(f"there is no '{name}'", where=str(self.place))

    def text(self, name: str) -> str:
        """A small text of it."""
        return files.read(self.file(name)).decode()

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The table in memory, texts as texts: for small ones."""
        parts = [read(file, columns, coded=False) for file in self.files()]
        return pa.concat_tables(parts, promote_options="default") if parts else pa.table({})


def opened(file: str, columns: Sequence[str] | None, *, coded: bool = True) -> pq.ParquetFile:
    """A Parquet file at an address; ``coded``: columns of few distinct texts stay dictionaries."""
    source = files.random(file)
    remote = not files.address(file).local
    if not coded:
        return pq.ParquetFile(source, pre_buffer=remote)
    if columns is None:
        names = set(pq.read_schema(files.random(file)).names)
    else:
        names = set(columns)
    return pq.ParquetFile(source, read_dictionary=sorted(names & DICTIONARY), pre_buffer=remote)


def stream(
    file: str, columns: Sequence[str] | None, rows: int, *, coded: bool = True
) -> Iterator[pa.Table]:
    """A file's rows, so many at a time."""
    found = opened(file, columns, coded=coded)
    for batch in found.iter_batches(batch_size=rows, columns=columns, use_threads=False):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def read(file: str, columns: Sequence[str] | None = None, *, coded: bool = True) -> pa.Table:
    """A file's rows in memory."""
    return opened(file, columns, coded=coded).read(columns=columns, use_threads=False)


def of_keys(
    file: str, keys: np.ndarray, *, column: str = "subject_id", columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows whose ``column`` is one of ``keys`` (k,), ascending: of a file that is sorted by it,
    only groups of rows that may hold one are read."""
    found = opened(file, columns)
    rows = _grouped(found, column, lambda low, high: _between(keys, low, high), columns)
    return rows.filter(pc.is_in(rows.column(column), pa.array(keys)))


def of_range(file: str, low: int, high: int, *, column: str = "subject_id") -> pa.Table:
    """The rows whose ``column`` is in [low, high), read as by :func:`of_keys`."""
    rows = _grouped(opened(file, None), column, lambda least, most: least < high and low <= most)
    there = rows.column(column)
    return rows.filter(pc.and_(pc.greater_equal(there, low), pc.less(there, high)))


def groups(file: str, *, column: str = "subject_id") -> list[tuple[int, int, int]]:
    """The least and greatest value of ``column`` in each group of rows, and how many they are."""
    found = opened(file, [column])
    return [
        (*_bounds(found, number, column), found.metadata.row_group(number).num_rows)
        for number in range(found.num_row_groups)
    ]


def _between(keys: np.ndarray, low: int, high: int) -> bool:
    at = np.searchsorted(keys, low)
    return bool(at < len(keys) and keys[at] <= high)


def _bounds(found: pq.ParquetFile, group: int, column: str) -> tuple[int, int]:
    at = found.schema_arrow.get_field_index(column)
    told = found.metadata.row_group(group).column(at).statistics
    return (told.min, told.max) if told is not None and told.has_min_max else EVERYTHING


def _grouped(
    found: pq.ParquetFile,
    column: str,
    fits: Callable[[int, int], bool],
    columns: Sequence[str] | None = None,
) -> pa.Table:
    wanted = [n for n in range(found.num_row_groups) if fits(*_bounds(found, n, column))]
    rows: pa.Table = found.read_row_groups(wanted, columns=columns, use_threads=False)
    return rows


def of_manifest(name: str, place: Address, key: str, entry: Mapping[str, Any]) -> Stored:
    """What the manifest says of a table."""
    parts = tuple(Part(*plain) for plain in entry["parts"])
    return Stored(name, place, key, entry["rows"], parts)


def of_files(name: str, addresses: Sequence[Address]) -> Stored:
    """Files in a scratch folder, as if they were a table."""
    parts = tuple(Part(file.name) for file in addresses)
    return Stored(name, addresses[0].parent if addresses else Address("/"), "", None, parts)
