"""Parquet files as rows that know their number."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clinloom.files import FileUnit, Piece, random
from clinloom.sources._parcel import Refusals, whole
from clinloom.sources._rows.csv import Needed, Rows, check

BATCH = 1 << 18  # rows that are read at once


def rows(
    pieces: Sequence[FileUnit], *, named: Sequence[str], needed: Needed, refused: Refusals
) -> Iterator[Rows]:
    """The rows of Parquet files in batches, each column in its own type.

    ``needed``: of a header, the columns that are read. Raises SourceError where a file lacks one of
    ``named``.
    """
    for piece in pieces:
        opened = _opened(piece, refused)
        if opened is None:
            continue
        check(opened.schema_arrow.names, named, piece.name)
        columns = needed(opened.schema_arrow.names)
        number = 0
        for batch in opened.iter_batches(BATCH, columns=list(columns), use_threads=False):
            places = np.arange(number, number + batch.num_rows)
            number += batch.num_rows
            cells = {name: batch.column(name) for name in columns}
            yield Rows(cells, [piece.name], np.zeros(batch.num_rows, np.int32), places)
        if not number:
            refused.add("empty_file", file=piece.name)


def _opened(piece: FileUnit, refused: Refusals) -> pq.ParquetFile | None:
    try:
        packed = piece.name.endswith(".gz")
        if isinstance(piece, Piece) and piece.member is None and not packed:
            return pq.ParquetFile(random(piece.path))
        data = whole(piece, refused)
        return pq.ParquetFile(io.BytesIO(data)) if data is not None else None
    except pa.ArrowInvalid:
        refused.add("unreadable_file", file=piece.name)
        return None
