"""Tables (CSV, TSV, Parquet): a row is an event (long), or many events (wide).

Long: `code`, `value`, `time` name columns. Wide: `events` lists what each row says, `columns` takes
all others. One file may hold one patient (`patient: {row: ...}` or `{file_name: true}`) or many
(`patient: COLUMN`, or `{each_row: true}`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from clinloom.files import PARQUET, FileUnit, Part, Piece, parted
from clinloom.sources._frames import State
from clinloom.sources._given import FileSource, handed, opened, planned
from clinloom.sources._parcel import Refusals
from clinloom.sources._rows import csv, parquet
from clinloom.sources._rows.csv import Rows
from clinloom.sources._rows.events import owners, parcels
from clinloom.sources._rows.mapping import Mapping

REQUIRES: str | None = None
LINKS = False  # whether it tells which identifiers belong together


class Options(Mapping, FileSource):
    """Files of rows and what their columns mean."""

    type: Literal["table"] = Field(default="table", description="which kind of source")
    format: Literal["auto", "csv", "parquet"] = Field(
        default="auto", description="auto: by the file's name, else by how it begins"
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
    """Its files, a large CSV file as ranges of its lines, unless one row of it tells whose it is.

    Raises SourceError where nothing is there.
    """
    return planned(options, where, lines=options.whose is None)


frame = opened


def read(units: Iterable[FileUnit], options: Options, source: str) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, links and rejected for a group of files, or of given bytes.

    ``record_id`` is the file's name and, after ``@``, the byte (CSV) or, after ``#``, the row
    (Parquet, from 0) at which the row starts; without the name where that is the patient's
    identifier. Reasons of refusal: ``no_patient``, ``no_code``, ``no_time``, ``malformed_row``,
    ``malformed_encoding``, ``unreadable_file``, ``too_large``, ``empty_file``.
    Raises SourceError where a column that the mapping names is not in a file, or cannot be read.
    """
    refused = Refusals(source)
    seen: set[str] = set()
    given: dict[str, FileUnit] = {}
    owner: dict[str, str | None] = {}
    pieces = handed(units, options, lines=True)
    if options.whose is not None:
        pieces = _noted(pieces, given)
    for rows, mark in _rows(pieces, options, refused):
        if rows.part and options.whose is not None:
            name = rows.files[0]
            if name not in owner:
                owner[name] = _owner(given[name], options)
            rows = replace(rows, owner=owner[name])
        yield from parcels(rows, mark, options, refused, seen)
    left = refused.last()
    if left:
        yield left


def _noted(pieces: Iterable[FileUnit], given: dict[str, FileUnit]) -> Iterator[FileUnit]:
    """The pieces; ``given`` gets the files that they are of, by their names."""
    for piece in pieces:
        given[piece.name] = piece.of if isinstance(piece, Part) and piece.of else piece
        yield piece


def _owner(piece: FileUnit, options: Options) -> str | None:
    """Whose a file is whose rows come in several batches: any of them may tell it."""
    for rows, _ in _rows(parted(piece), options, Refusals("")):
        for owner in owners(rows, options):
            return owner
    return None


def _rows(
    pieces: Iterable[FileUnit], options: Options, refused: Refusals
) -> Iterator[tuple[Rows, str]]:
    columnar: list[FileUnit] = []
    found = csv.rows(
        _plain(pieces, options, columnar),
        named=options.named,
        needed=options.needed,
        delimiter=options.delimiter,
        encoding=options.encoding,
        refused=refused,
        parquet=columnar if options.format == "auto" else None,
    )
    for rows in found:
        yield rows, "@"
    for rows in parquet.rows(columnar, named=options.named, needed=options.needed, refused=refused):
        yield rows, "#"


def _plain(
    pieces: Iterable[FileUnit], options: Options, columnar: list[FileUnit]
) -> Iterator[FileUnit]:
    """The files that are not called Parquet; ``columnar`` gets those that are."""
    for piece in pieces:
        if options.format == "csv" or (options.format == "auto" and not _is_parquet(piece)):
            yield piece
        else:
            columnar.append(piece)


def _is_parquet(piece: FileUnit) -> bool:
    """By its name; of a large file, which is not to be read whole for that, by how it begins."""
    if piece.name.lower().endswith((".parquet", ".pq")):
        return True
    if not isinstance(piece, Piece) or isinstance(piece, Part) or not piece.large:
        return False
    plain = piece.start is None and piece.member is None
    return plain and piece.begin(len(PARQUET)) == PARQUET
