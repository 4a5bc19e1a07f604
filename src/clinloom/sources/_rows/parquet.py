"""Parquet files as rows that know their number."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinloom.errors import SourceError
from clinloom.files import FileUnit, Part, Piece, of_storage, random
from clinloom.sources._parcel import Refusals, whole
from clinloom.sources._rows.csv import Needed, Rows, check, once

BATCH = 1 << 18  # rows that are read at once
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


def rows(
    pieces: Sequence[FileUnit], *, named: Sequence[str], needed: Needed, refused: Refusals
) -> Iterator[Rows]:
    """The rows of Parquet files in batches, each column in its own type.

    ``needed``: of a header, the columns that are read. A row with a text that is not in UTF-8 is
    refused; from a damaged page on, so are the rows that follow, together. Raises SourceError where
    a file lacks one of ``named``, or holds lists or the like in a column that is read.
    """
    for piece in pieces:
        opened = _opened(piece, refused)
        if opened is None:
            continue
        schema = opened.schema_arrow
        check(schema.names, named, piece.name)
        columns = needed(schema.names)
        once(schema.names, columns, piece.name)
        _flat(schema, columns, piece.name)
        number = 0
        for batch in _batches(opened, columns, piece.name, refused):
            places = np.arange(number, number + batch.num_rows)
            number += batch.num_rows
            made, kept = _texts(batch, places, piece.name, refused)
            part = opened.metadata.num_rows > batch.num_rows
            cells = {name: made.column(name) for name in columns}
            yield Rows(cells, [piece.name], np.zeros(len(kept), np.int32), kept, part=part)
        if not opened.metadata.num_rows:
            refused.add("empty_file", file=piece.name)


def _batches(
    opened: pq.ParquetFile, columns: Sequence[str], file: str, refused: Refusals
) -> Iterator[pa.RecordBatch]:
    number = 0
    found = opened.iter_batches(BATCH, columns=list(columns), use_threads=False)
    while True:
        try:
            batch = next(found, None)
        except (pa.ArrowException, OSError) as error:
            if of_storage(error):
                raise
            refused.add("unreadable_file", file=file, position=number)
            return
        if batch is None:
            return
        number += batch.num_rows
        yield batch


def _opened(piece: FileUnit, refused: Refusals) -> pq.ParquetFile | None:
    try:
        if isinstance(piece, Piece) and not isinstance(piece, Part) and not piece.packed:
            return pq.ParquetFile(random(piece.path), page_checksum_verification=True)
        data = whole(piece, refused)
        if data is None:
            return None
        return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        if of_storage(error):
            raise
        refused.add("unreadable_file", file=piece.name)
        return None


def _flat(schema: pa.Schema, columns: Sequence[str], file: str) -> None:
    for name in columns:
        kind = schema.field(name).type
        if pa.types.is_nested(kind):
            raise SourceError(
                f"the column '{name}' holds {kind} and not one value a row",
                where=file,
                mend="unfold it into columns or rows, or leave it out of the study",
            )


def _texts(
    batch: pa.RecordBatch, places: np.ndarray, file: str, refused: Refusals
) -> tuple[pa.RecordBatch, np.ndarray]:
    """The rows whose texts are in UTF-8, and their numbers."""
    found = [_text(column) for column in batch.columns]
    names = batch.schema.names
    made = pa.RecordBatch.from_arrays([column for column, _ in found], names=names)
    wrong = {name: bad for name, (_, bad) in zip(names, found, strict=True) if bad is not None}
    if not wrong:
        return made, places
    bad = np.logical_or.reduce(list(wrong.values()))
    for row in np.flatnonzero(bad).tolist():
        field = next(name for name, flags in wrong.items() if flags[row])
        refused.add("malformed_encoding", file=file, position=int(places[row]), field=field)
    return made.filter(pa.array(~bad)), places[~bad]


def _text(column: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """A column whose bytes, as some writers leave texts, are texts; and where they are none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        values, bad = _text(column.dictionary)
        if bad is not None:
            bad = pa.array(bad).take(column.indices).fill_null(False).to_numpy(zero_copy_only=False)
        return pa.DictionaryArray.from_arrays(column.indices, values), bad
    if any(same(kind) for same in TEXTS):
        try:
            column.validate(full=True)
            return column, None
        except pa.ArrowInvalid:
            pass
    elif not any(same(kind) for same in BYTES):
        return column, None
    held = column.cast(pa.binary())
    try:
        return held.cast(pa.string()), None
    except pa.ArrowInvalid:
        plain = [v if v is None else v.decode(errors="ignore") for v in held.to_pylist()]
    made = pa.array(plain, pa.string())
    bad = pc.not_equal(made.cast(pa.binary()), held).fill_null(False)
    return made, bad.to_numpy(zero_copy_only=False)
