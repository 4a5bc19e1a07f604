"""Tables (CSV, TSV, Parquet): a row is an event (long), or many events (wide).

Long: `code`, `value`, `time` name columns. Wide: `events` lists what each row says, `columns` takes
all others. One file may hold one patient (`patient: {row: ...}` or `{file_name: true}`) or many
(`patient: COLUMN`, or `{each_row: true}`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from clinloom.files import FileUnit
from clinloom.sources._frames import State
from clinloom.sources._given import FileSource, handed, opened, planned
from clinloom.sources._parcel import Refusals
from clinloom.sources._rows import csv, parquet
from clinloom.sources._rows.csv import Rows
from clinloom.sources._rows.events import parcels
from clinloom.sources._rows.mapping import Mapping

REQUIRES: str | None = None
LINKS = False  # whether it tells which identifiers belong together


class Options(Mapping, FileSource):
    """Files of rows and what their columns mean."""

    type: Literal["table"] = Field(default="table", description="which kind of source")
    format: Literal["auto", "csv", "parquet"] = Field(
        default="auto", description="auto: by the file's name"
    )
    delimiter: str = Field(default="auto", description="auto: of , tab ; | the commonest")
    encoding: Literal["utf-8", "latin-1", "cp1252"] = Field(
        default="utf-8", description="how a CSV file's text is written"
    )

    @model_validator(mode="after")
    def _one_character(self) -> Options:
        if self.delimiter != "auto" and len(self.delimiter) != 1:
            raise ValueError("`delimiter` is one character")
        return self


def plan(options: Options, where: str) -> Iterator[FileUnit | State]:
    """Its files, a large CSV file as ranges of its lines.

    Raises SourceError where nothing is there.
    """
    return planned(options, where, lines=True)


frame = opened


def read(units: Iterable[FileUnit], options: Options, source: str) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, links and rejected for a group of files, or of given bytes.

    ``record_id`` is the file's name and, after ``@``, the byte (CSV) or, after ``#``, the row
    (Parquet, from 0) at which the row starts; without the name where that is the patient's
    identifier. Reasons of refusal: ``no_patient``, ``no_code``, ``no_time``, ``malformed_row``,
    ``malformed_file``, ``malformed_encoding``, ``unreadable_file``, ``empty_file``. Raises
    SourceError where a column that the mapping names is not in a file.
    """
    refused = Refusals(source)
    seen: set[str] = set()
    for rows, mark in _rows(handed(units, options), options, refused):
        yield from parcels(rows, mark, options, refused, seen)
    left = refused.last()
    if left:
        yield left


def _rows(
    pieces: Iterable[FileUnit], options: Options, refused: Refusals
) -> Iterator[tuple[Rows, str]]:
    columnar: list[FileUnit] = []
    plain: list[FileUnit] = []
    for piece in pieces:
        named = piece.name.lower().endswith((".parquet", ".pq"))
        is_parquet = options.format == "parquet" or (options.format == "auto" and named)
        (columnar if is_parquet else plain).append(piece)
    found = csv.rows(
        plain,
        named=options.named,
        needed=options.needed,
        delimiter=options.delimiter,
        encoding=options.encoding,
        refused=refused,
    )
    for rows in found:
        yield rows, "@"
    for rows in parquet.rows(columnar, named=options.named, needed=options.needed, refused=refused):
        yield rows, "#"
