"""Photographs and exported images (JPEG, PNG, TIFF …) with a manifest that says whose they are.

The manifest is a CSV or Parquet file with a row an image. Each image is measured when it is
acquired, and its measurements are events at the manifest's time.
"""

from __future__ import annotations

import datetime as dt
import io
import string
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from clinloom.errors import DataError, MissingDependency, SourceError, nearest
from clinloom.files import Piece, address, listing, random
from clinloom.radiomics import measure
from clinloom.sources._images.measured import Measured, coded
from clinloom.study import Model, SourceModel, StudyPath

REQUIRES: str | None = "images"
LINKS = False  # whether it tells which identifiers belong together
SPLITTABLE = False


class TimeSpec(Model):
    """When an image was available: a column of the manifest, or one moment for all."""

    column: str | None = Field(default=None, description="the column that holds it")
    format: str | None = Field(default=None, description="as in strptime; none: ISO 8601")
    at: dt.datetime | None = Field(default=None, description="the same moment for every image")

    @model_validator(mode="after")
    def _one(self) -> TimeSpec:
        if (self.column is None) == (self.at is None):
            raise ValueError("give either `column` or `at`")
        return self


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
    modality: str = Field(default="XC", description="DICOM modality, such as XC, DX, OP")
    body_part: str = Field(default="UNKNOWN", description="DICOM body part, such as SKIN")

    @field_validator("file")
    @classmethod
    def _plain(cls, template: str) -> str:
        names = _columns(template)
        if not names or any(not n or set(n) & set(".[]") for n in names):
            raise ValueError("`file` names a manifest's columns in braces, as '{image_id}.jpg'")
        return template


def _columns(template: str) -> list[str]:
    try:
        return [name for _, name, *_ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        return []


@dataclass(frozen=True)
class _Row:
    """What the manifest says of an image."""

    patient: str | None
    time: int | None
    time_text: str | None


def read(pieces: Sequence[Piece], options: Options, source: str) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, images, links and rejected for a group of files.

    Refused, by reason: ``not_in_manifest``, ``ambiguous_in_manifest`` (rows that differ, or files
    of the same name), ``no_patient``, ``no_time``, ``not_an_image``, ``truncated_image``,
    ``oversized_image``, ``unmeasurable_image``, ``unreadable_file``; and, once for the source, the
    manifest's rows without a file: ``absent_image``. Raises SourceError where the manifest cannot
    be read or lacks a column, MissingDependency where Pillow is not installed.
    """
    _pillow()
    rows = _manifest(options)
    depths = sorted({name.count("/") for name in rows})
    everything = [p for p in _images(options) if not _is_manifest(p, options)]
    names = Counter(name for piece in everything for name in _named(piece, depths) if name in rows)
    measured = Measured(source)
    if pieces and everything and everything[0] == next(iter(pieces)):
        for name in rows.keys() - names.keys():  # one group speaks for the whole source
            patient = rows[name][0].patient
            measured.reject(name, "absent_image", record=_stem(name), patient=patient)
    for piece in pieces:
        if _is_manifest(piece, options):
            continue
        _image(piece, options, rows, names, depths, measured)
        if measured.full:
            yield measured.parcel()
    last = measured.parcel()
    if last:
        yield last


def _image(
    piece: Piece,
    options: Options,
    rows: dict[str, list[_Row]],
    names: Counter[str],
    depths: list[int],
    measured: Measured,
) -> None:
    """Measure one file, or say why not; no file fails the batch."""
    name = next((n for n in _named(piece, depths) if n in rows), None)
    record = _stem(piece.name)
    found = rows[name] if name is not None else []
    row = found[0] if found else None
    patient = row.patient if row and len(found) == 1 else None
    reason = _refusal(found, names.get(name, 0) if name else 0, options)
    if row is not None and reason is None:
        try:
            pixels = _pixels(piece)
            image = {
                "patient": patient,
                "sop_uid": record,
                "modality": coded(options.modality, absent="XC"),
                "body_part": coded(options.body_part, absent="UNKNOWN"),
                "time": row.time,
                "time_text": row.time_text,
                "rows": pixels.shape[0],
                "columns": pixels.shape[1],
                "file": piece.name,
            }
            measured.add(image, measure(pixels))
            return
        except _Refused as refusal:
            reason = refusal.args[0]
        except DataError:
            reason = "unmeasurable_image"
    measured.reject(piece.name, reason or "not_in_manifest", record=record, patient=patient)


class _Refused(Exception):
    """An image is refused; ``args[0]`` is the reason."""


def _refusal(found: list[_Row], files: int, options: Options) -> str | None:
    if not found:
        return "not_in_manifest"
    if len(found) > 1 or files > 1:
        return "ambiguous_in_manifest"
    if found[0].patient is None:
        return "no_patient"
    if options.time is not None and found[0].time is None and found[0].time_text is None:
        return "no_time"
    return None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependency(
            "reading images needs Pillow",
            where="sources.images",
            mend="pip install 'clinloom[images]'",
        ) from None
    return Image


def _pixels(piece: Piece) -> np.ndarray:
    """The pixels: gray (H, W) as stored (8 to 32 bits), or RGB (H, W, 3) uint8."""
    image_class = _pillow()
    try:
        data = piece.read()
    except Exception:  # an archive's member may be broken in any way
        raise _Refused("unreadable_file") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", image_class.DecompressionBombWarning)
            image = image_class.open(io.BytesIO(data))
    except (image_class.DecompressionBombError, image_class.DecompressionBombWarning):
        raise _Refused("oversized_image") from None
    except Exception:  # a header may be broken in any way
        raise _Refused("not_an_image") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if image.mode in ("1", "LA", "La"):
                image = image.convert("L")
            elif image.mode not in ("L", "RGB", "F", "I") and not image.mode.startswith("I;"):
                image = image.convert("RGB")
            return np.asarray(image)
    except Exception:  # a decoder may fail in any way
        raise _Refused("truncated_image") from None


def _images(options: Options) -> list[Piece]:
    return list(listing(options.path, include=options.include, where="sources"))


def _is_manifest(piece: Piece, options: Options) -> bool:
    return piece.member is None and piece.path == address(options.manifest)


def _named(piece: Piece, depths: Sequence[int]) -> list[str]:
    """The names by which a manifest may call the file: its last parts, for each depth."""
    parts = piece.name.replace("!/", "/").split("/")
    return ["/".join(parts[-1 - depth :]) for depth in depths]


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _manifest(options: Options) -> dict[str, list[_Row]]:
    """File name → what the manifest says of it (each distinct statement once)."""
    wanted = [*_columns(options.file), options.patient]
    if options.time is not None and options.time.column is not None:
        wanted.append(options.time.column)
    wanted = list(dict.fromkeys(wanted))
    table = _table(options.manifest, wanted)
    columns = {name: _strings(table.column(name)) for name in wanted}
    stamps = _stamps(table, columns, options.time)
    rows: dict[str, list[_Row]] = {}
    for number, patient in enumerate(columns[options.patient]):
        values = {name: columns[name][number] for name in _columns(options.file)}
        if not all(values.values()):
            continue  # a row without an image
        row = _Row(patient or None, *stamps[number])
        said = rows.setdefault(options.file.format_map(values), [])
        if row not in said:
            said.append(row)
    return rows


def _table(path: str, wanted: list[str]) -> pa.Table:
    try:
        file = random(path)
    except (FileNotFoundError, IsADirectoryError):
        raise SourceError(
            f"there is no manifest '{path}'", mend="mend `manifest` in the study"
        ) from None
    try:
        if address(path).suffix.lower() == ".parquet":
            opened = pq.ParquetFile(file)
            _check(opened.schema_arrow.names, wanted, path)
            return opened.read(columns=wanted)
        strings = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
        )
        table = pyarrow.csv.read_csv(file, convert_options=strings)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        raise SourceError(
            "the manifest is not a CSV or Parquet file", where=path, mend="is it UTF-8 text?"
        ) from None
    _check(table.column_names, wanted, path)
    return table.select(wanted)


def _check(held: Sequence[str], wanted: Sequence[str], path: str) -> None:
    for name in wanted:
        if name not in held:
            near = nearest(name, held)
            raise SourceError(
                f"the manifest has no column '{name}'",
                where=path,
                mend=f"did you mean '{near}'?" if near else f"it has {', '.join(held)}",
            )


def _strings(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_floating(column.type):  # an identifier that a null made floating
        return ["" if v is None or v != v else f"{v:.15g}" for v in column.to_pylist()]
    return ["" if v is None else str(v).strip() for v in column.to_pylist()]


def _stamps(
    table: pa.Table, columns: dict[str, list[str]], spec: TimeSpec | None
) -> list[tuple[int | None, str | None]]:
    if spec is not None and spec.at is not None:
        return [(_microseconds(spec.at), None)] * table.num_rows
    if spec is None or spec.column is None:
        return [(None, None)] * table.num_rows
    values = table.column(spec.column).to_pylist()
    texts = columns[spec.column]
    return [_stamp(v, t, spec.format) for v, t in zip(values, texts, strict=True)]


def _stamp(value: Any, text: str, form: str | None) -> tuple[int | None, str | None]:
    if isinstance(value, dt.datetime):
        return _microseconds(value), None
    if not text:
        return None, None
    try:
        read_ = dt.datetime.strptime(text, form) if form else dt.datetime.fromisoformat(text)
    except ValueError:
        return None, text
    return _microseconds(read_), None


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _microseconds(moment: dt.datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)
