"""What tasks hand back through Spark: blocks of rows, receipts of files, small partial sums."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from clinloom.files import Address
from clinloom.store import Part, TableWriter, attempt
from clinloom.tables import Table

Batches = Iterator[pa.RecordBatch]

SLICE = "place int, bucket int, kind string, rows long, size long, block binary"
RECEIPT = "name string, told string, sum binary"
PROBLEM = "problem"  # the kind of a block, or the name of a receipt, that tells of a fault


def of_slices(batches: Batches) -> Iterator[tuple[str, int, int, int, bytes]]:
    """Kind, bucket, rows, unpacked size and content of each slice."""
    for some in batches:
        for row in some.to_pylist():
            yield row["kind"], row["bucket"], row["rows"], row["size"], row["block"]


def slices(kind: str, made: Iterable[tuple[int, int, int, bytes]], spots: Sequence[int]) -> Batches:
    """Slices of (bucket, rows, size, content), one a batch; ``spots``: the key of each bucket."""
    for bucket, rows, size, data in made:
        yield batch([[spots[bucket]], [bucket], [kind], [rows], [size], [data]], SLICES)


def receipt(name: str, told: str | None, total: bytes | None) -> pa.RecordBatch:
    """What a task tells of a file, a fault or a sum."""
    return batch([[name], [told], [total]], RECEIPTS)


def batch(cells: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Columns of plain values."""
    arrays = [pa.array(c, f.type) for c, f in zip(cells, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema(list(types.items()))


SLICES = _schema(
    place=pa.int32(),
    bucket=pa.int32(),
    kind=pa.string(),
    rows=pa.int64(),
    size=pa.int64(),
    block=pa.binary(),
)
RECEIPTS = _schema(name=pa.string(), told=pa.string(), sum=pa.binary())


class Writing:
    """The files that one task writes: a table each, whole or not at all."""

    def __init__(self, places: Mapping[str, Address], tables: Mapping[str, Table], bucket: int):
        self.places, self.tables, self.bucket = places, tables, bucket
        self._open: dict[str, TableWriter] = {}

    def __enter__(self) -> Writing:
        return self

    def write(self, parcel: Mapping[str, pa.Table]) -> None:
        """Append the rows of each table that is to be written."""
        for name, table in self.tables.items():
            rows = parcel.get(name)
            if rows is None or not rows.num_rows:
                continue
            if name not in self._open:
                file = self.places[name] / attempt(f"part-{self.bucket:05d}", ".parquet")
                self._open[name] = TableWriter(file, table).__enter__()
            self._open[name].write(rows)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for writer in self._open.values():
            writer.__exit__(kind, error, trace)

    def parts(self) -> dict[str, Part]:
        """What was written of each table."""
        return {
            name: Part(writer.file.name, self.bucket, writer.rows, writer.bytes)
            for name, writer in self._open.items()
        }

    def receipts(self) -> Batches:
        """What was written, as a task tells it."""
        for name, part in self.parts().items():
            yield receipt(name, json.dumps(part.plain()), None)
