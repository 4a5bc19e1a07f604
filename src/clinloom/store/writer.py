"""One Parquet file of a declared table, whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clinloom.errors import ClinloomError, StoreError
from clinloom.tables import Table, conform

DICTIONARY = {
    "code",
    "unit",
    "source",
    "patient",
    "file",
    "modality",
    "body_part",
    "rule",
    "reason",
}


class TableWriter:
    """Writes one Parquet file of a declared table, whole or not at all."""

    def __init__(self, path: Path, table: Table):
        self.path, self.table = path, table
        self.temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        self.schema = pa.schema(
            [
                f.with_type(pa.dictionary(pa.int32(), pa.string())) if f.name in DICTIONARY else f
                for f in table.arrow
            ]
        )
        self.rows = 0
        self._writer: pq.ParquetWriter  # opened on entry

    def __enter__(self) -> TableWriter:
        options: Any = {"compression": "zstd", "compression_level": 1, "store_schema": False}
        self._writer = pq.ParquetWriter(self.temporary, self.schema, **options)
        return self

    def write(self, rows: pa.Table) -> None:
        """Append rows; they must conform to the table's declaration."""
        arrays = []
        for wanted, declared in zip(self.schema, self.table.arrow, strict=True):
            values = rows.column(wanted.name) if wanted.name in rows.column_names else None
            if values is None or values.type not in (wanted.type, declared.type):
                part = rows.select([wanted.name] if values is not None else [])
                one = Table(self.table.name, "", (_column(self.table, wanted.name),))
                values = conform(_sized(part, rows.num_rows), one).column(0)
            if values.type != wanted.type:
                values = values.dictionary_encode().cast(wanted.type)
            if not wanted.nullable and values.null_count:
                raise StoreError(f"'{wanted.name}' holds nulls", where=self.table.name)
            arrays.append(values)
        self._writer.write_table(pa.table(arrays, schema=self.schema), row_group_size=1 << 19)
        self.rows += rows.num_rows

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._writer.close()
            if kind is None:
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def _column(table: Table, name: str) -> Any:
    return next(c for c in table.columns if c.name == name)


def _sized(part: pa.Table, rows: int) -> pa.Table:
    return part if part.num_columns else pa.table({"_": pa.nulls(rows)})


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that no space is left."""
    if error is None or isinstance(error, ClinloomError):
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or disk_full(error.__cause__)
