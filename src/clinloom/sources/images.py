"""Photographs and exported images (JPEG, PNG, TIFF …) with a manifest that says whose they are.

The manifest is a CSV or Parquet file with a row an image. Each image is measured when it is
acquired, and its measurements are events at the manifest's time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from clinloom.errors import MissingDependency
from clinloom.files import BROKEN, FileUnit, Piece, address, adjoined, entry, listing
from clinloom.sources._declared import TimeSpec
from clinloom.sources._images.apart import examined
from clinloom.sources._images.manifest import Index, Manifest, Row, calls, columns_of
from clinloom.sources._images.measured import Measured, coded
from clinloom.sources._parcel import unreadable
from clinloom.study import SourceModel, StudyPath

REQUIRES: str | None = "images"
LINKS = False  # whether it tells which identifiers belong together
KERNEL = "clinloom.sources._images.photo"


class Options(SourceModel):
    """Image files and the manifest that names their patients."""

    type: Literal["images"] = Field(default="images", description="which kind of source")
    path: StudyPath = Field(description="a folder or zip archive of images")
    include: str = Field(default="*", description="only files named like this")
    manifest: StudyPath = Field(description="a CSV or Parquet file with a row an image")
    file: str = Field(description="an image's file name, by columns: '{image_id}.jpg'")
    patient: str = Field(description="the column that holds the patient's identifier")
    time: TimeSpec | None = Field(
        default=None, description="when images were available; none: known at all times"
    )
    modality: str = Field(
        default="XC", description="DICOM modality, such as XC, DX, OP, or by columns: '{kind}'"
    )
    body_part: str = Field(
        default="UNKNOWN", description="DICOM body part, such as SKIN, or by columns: '{site}'"
    )
    view: str | None = Field(
        default=None, description="DICOM view position, such as PA, or by columns: '{projection}'"
    )

    @field_validator("file", "modality", "body_part", "view")
    @classmethod
    def _plain(cls, template: str | None, info: ValidationInfo) -> str | None:
        names = columns_of(template or "")
        braces = set(template or "") & set("{}")
        if any(not n or set(n) & set(".[]") for n in names) or (braces and not names):
            raise ValueError("columns of the manifest stand in braces, as '{image_id}'")
        if info.field_name == "file" and not names:
            raise ValueError("`file` names a manifest's columns in braces, as '{image_id}.jpg'")
        return template


@dataclass(frozen=True)
class Photo:
    """A file with the numbers of the manifest's rows that name it: none, one, or two that differ.

    ``shared``: other files bear the same name.
    """

    piece: Piece
    rows: tuple[int, ...] = ()
    shared: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.piece.name

    @property
    def size(self) -> int:
        """The file's bytes."""
        return self.piece.size

    @property
    def stamp(self) -> str:
        """The file's stamp; what the manifest says of it is in the manifest's own."""
        return self.piece.stamp

    def read(self) -> bytes:
        """The file's bytes."""
        return self.piece.read()


@dataclass(frozen=True)
class Absent:
    """Some of the manifest's rows (their numbers) that name no file; the first carries none.

    ``stamp`` changes when the manifest is rewritten.
    """

    name: str
    size: int
    stamp: str
    rows: tuple[int, ...] = ()

    def read(self) -> bytes:
        """Nothing: there is no such file."""
        return b""


def plan(options: Options, where: str) -> Iterator[Photo | Absent]:
    """The images, each with its rows of the manifest; before them the rows without a file.

    Files and manifest are matched here, once for all tasks, by arrays of about thirty bytes a row.
    Raises SourceError where nothing is there, the manifest cannot be read or lacks a column.
    """
    index = Index(_manifest(options))
    held = entry(options.manifest)
    for some in _images(options, where):
        index.count([piece.name for piece in some])
    yield Absent(options.manifest, 0, f"{held.size} {held.stamp}")
    absent = index.absent()
    for begin in range(0, len(absent), ABSENT):
        rows = absent[begin : begin + ABSENT].tolist()
        yield Absent(options.manifest, 64 * len(rows), str(begin), tuple(rows))
    for some in _images(options, where):
        found = index.match([piece.name for piece in some])
        for piece, places in zip(some, found, strict=True):
            hits = places[places >= 0]
            if not len(hits):
                yield Photo(piece)
                continue
            at = int(hits[0])
            rows = [int(n) for n in (index.first[at], index.other[at]) if n >= 0]
            yield Photo(piece, tuple(rows), bool(index.files[at] > 1))


ABSENT = 4096  # rows without a file in one unit
LISTED = 4096  # files that are matched at once


def _manifest(options: Options) -> Manifest:
    labels = (options.modality, options.body_part, options.view or "")
    return Manifest(options.manifest, options.file, options.patient, options.time, labels)


def _images(options: Options, where: str) -> Iterator[list[Piece]]:
    """The files but the manifest, some at a time."""
    found = listing(options.path, include=options.include, where=f"{where}.path")
    kept = (p for p in found if p.member is not None or p.path != address(options.manifest))
    while some := list(islice(kept, LISTED)):
        yield some


def read(
    units: Sequence[Photo | Absent], options: Options, source: str
) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, images, links and rejected for a group of units.

    Refused, by reason: ``not_in_manifest``, ``ambiguous_in_manifest`` (rows that differ, or files
    of the same name), ``no_patient``, ``no_time``, ``not_an_image``, ``truncated_image``,
    ``oversized_image``, ``unmeasurable_image``, ``unreadable_file``, ``decoder_crashed``,
    ``decoder_hung``; and the manifest's rows without a file: ``absent_image``. Of the manifest only
    the rows that the units name are kept. Raises SourceError where it cannot be read,
    MissingDependency where Pillow is not installed.
    """
    if find_spec("PIL") is None:
        raise MissingDependency(
            "reading images needs Pillow",
            where="sources.images",
            mend="pip install 'clinloom[images]'",
        )
    rows = _manifest(options).rows([row for unit in units for row in unit.rows])
    pieces = iter(adjoined([unit.piece for unit in units if isinstance(unit, Photo)]))
    measured = Measured(source)
    for unit in units:
        if isinstance(unit, Absent):
            for row in (rows[number] for number in unit.rows):
                record = _stem(row.name)
                measured.reject(row.name, "absent_image", record=record, patient=row.patient)
        else:
            said = [rows[number] for number in unit.rows]
            said = [row for row in dict.fromkeys(said) if calls(row.name, unit.name)]
            _image(next(pieces), options, said, unit.shared, measured)
        if measured.full:
            yield measured.parcel()
    last = measured.parcel()
    if last:
        yield last


def _image(
    piece: FileUnit, options: Options, found: list[Row], shared: bool, measured: Measured
) -> None:
    """Measure one file, or say why not; no file fails the batch."""
    record = _stem(piece.name)
    row = found[0] if found else None
    patient = row.patient if row and len(found) == 1 else None
    broken = isinstance(piece, Piece) and piece.member == BROKEN
    reason, field = ("unreadable_file", None) if broken else _refusal(found, shared, options)
    if row is not None and reason is None:
        made = _examined(piece)
        reason = made.get("refused")
        if reason is None:
            modality, body_part, view = row.labels
            image = {
                "patient": patient,
                "sop_uid": record,
                "modality": coded(modality, absent="OT"),
                "body_part": coded(body_part, absent="UNKNOWN"),
                "view": coded(view, absent="") or None,
                "content": "image",
                "time": row.time,
                "time_text": row.time_text,
                "zoneless": row.zoneless,
                "rows": made["rows"],
                "columns": made["columns"],
                "file": piece.name,
            }
            measured.add(image, made["measurements"])
            return
    told = {"record": record, "patient": patient, "field": field}
    measured.reject(piece.name, reason or "not_in_manifest", **told)


def _examined(piece: FileUnit) -> dict[str, Any]:
    try:
        data = piece.read()
    except Exception as error:  # an archive's member may be broken in any way
        return {"refused": unreadable(error)}
    return examined(KERNEL, data, {})


def _refusal(found: list[Row], shared: bool, options: Options) -> tuple[str | None, str | None]:
    """The reason, and the manifest's column that is at fault; None where there is none."""
    if not found:
        return "not_in_manifest", None
    if len(found) > 1 or shared:
        return "ambiguous_in_manifest", None
    if found[0].patient is None:
        return "no_patient", options.patient
    if options.time is not None and options.time.due and found[0].time is None:
        if found[0].time_text is None:
            return "no_time", options.time.column
        if options.time.declared:
            return "invalid_date", options.time.column
    return None, None


def _stem(name: str) -> str:
    """An image's identity in its source: its name with its folders, without the ending."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + (last.rsplit(".", 1)[0] or last)
