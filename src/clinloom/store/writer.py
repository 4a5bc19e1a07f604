"""One Parquet file of a declared table, whole or not at all."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clinloom import files
from clinloom.errors import ClinloomError, StoreError
from clinloom.files import Address
from clinloom.tables import Column, Table, conform

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
    "field",
}
UNIQUE = {"record_id"}  # of this, a dictionary helps nobody, nor does more than quick packing
QUICK = -2  # level of zstd: half the time of 1, a twentieth more bytes
ROW_GROUP = 1 << 19


def attempt(stem: str, suffix: str = "") -> str:
    """A name that no other attempt to write the same thing has."""
    return f"{stem}-{uuid.uuid4().hex[:12]}{suffix}"


def coded(table: Table) -> pa.Schema:
    """The table's schema with columns of few distinct texts as dictionaries."""
    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([f.with_type(words) if f.name in DICTIONARY else f for f in table.arrow])


class TableWriter:
    """Writes a file of a declared table at an address, whole or not at all; ``told``: metadata."""

    def __init__(self, file: Address, table: Table, told: Mapping[str, str] | None = None):
        self.file, self.table, self.schema, self._told = file, table, coded(table), told
        self.rows = self.bytes = 0
        self._open = ExitStack()
        self._path: Path  # where it is built, and the writer: both from entry on
        self._writer: pq.ParquetWriter

    def __enter__(self) -> TableWriter:
        self._path = self._open.enter_context(files.building(self.file))
        plain = [name for name in self.schema.names if name not in UNIQUE]
        told = [name for name in plain if name not in DICTIONARY]  # each part has about all words
        quick = {name: QUICK if name in UNIQUE else 1 for name in self.schema.names}
        options: Any = {"compression": "zstd", "compression_level": quick, "store_schema": False}
        options |= {"use_dictionary": plain, "write_statistics": told}
        self._writer = pq.ParquetWriter(self._path, self.schema, **options)
        if self._told:
            self._writer.add_key_value_metadata(dict(self._told))
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
        self._writer.write_table(pa.table(arrays, schema=self.schema), row_group_size=ROW_GROUP)
        self.rows += rows.num_rows

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._writer.close()
            self.bytes = self._path.stat().st_size
        except BaseException as fault:
            self._open.__exit__(type(fault), fault, fault.__traceback__)
            raise
        self._open.__exit__(kind, error, trace)


def _column(table: Table, name: str) -> Column:
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
