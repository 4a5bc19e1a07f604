"""DICOM files, in folders and zip archives: each instance is measured when it is acquired.

Tags: PatientID (0010,0020), whose system is its issuer (0010,0021) unless `identifiers` names one;
Study, Series and SOP Instance UID (0020,000D), (0020,000E), (0008,0018); Modality (0008,0060);
BodyPartExamined (0018,0015); the acquisition time and its zone, see ``_time``. Pixel data: DICOM
PS3.3 C.7.6.3, PS3.5 section 8 and annex A.
"""

from __future__ import annotations

import datetime as dt
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from clinloom.errors import DataError, MissingDependency
from clinloom.files import FileUnit
from clinloom.radiomics import measure
from clinloom.sources._frames import State
from clinloom.sources._given import FileSource, handed, opened, planned
from clinloom.sources._images.measured import Measured, coded
from clinloom.sources._time import EPOCH, mark, utc
from clinloom.study import Zone

REQUIRES: str | None = "dicom"
LINKS = False  # whether it tells which identifiers belong together

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
NATIVE = {IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
_JPEG = "1.2.840.10008.1.2.4."
# The fastest plug-in that is right, then the others: pydicom's own order differs by version.
DECODERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((f"{_JPEG}50", f"{_JPEG}51"), ("gdcm", "pylibjpeg", "pillow")),
    **dict.fromkeys((f"{_JPEG}57", f"{_JPEG}70"), ("gdcm", "pylibjpeg")),
    **dict.fromkeys((f"{_JPEG}80", f"{_JPEG}81"), ("pyjpegls", "gdcm", "pylibjpeg")),
    **dict.fromkeys((f"{_JPEG}90", f"{_JPEG}91"), ("gdcm", "pylibjpeg", "pillow")),
    **dict.fromkeys((f"{_JPEG}201", f"{_JPEG}202", f"{_JPEG}203"), ("pylibjpeg",)),
    "1.2.840.10008.1.2.5": ("pylibjpeg", "gdcm", "pydicom"),
}
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TIMES = ("Acquisition", "Content", "Series", "Study")


class Options(FileSource):
    """DICOM instances; measurements become events at the time of acquisition."""

    TELLS_SYSTEMS: ClassVar[bool] = True

    type: Literal["dicom"] = Field(default="dicom", description="which kind of source")
    undated: Literal["reject", "static"] = Field(
        default="reject",
        description="an image without any date: refuse it, or take it as known at all times",
    )
    zone: Zone = Field(
        default="UTC", description="IANA time zone of images that name no TimezoneOffsetFromUTC"
    )


class _Refused(Exception):
    """An instance is refused; ``args[0]`` is the reason."""


def plan(options: Options, where: str) -> Iterator[FileUnit | State]:
    """Its files, each whole.

    Raises SourceError where nothing is there.
    """
    return planned(options, where, lines=False)


frame = opened


def read(units: Iterable[FileUnit], options: Options, source: str) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, images, links and rejected for a group of files, or of given bytes.

    A file that is refused is in ``rejected`` by its reason: ``not_dicom``, ``truncated_dicom``,
    ``unreadable_dicom``, ``pixelless_dicom``, ``no_patient``, ``no_time``,
    ``unsupported_transfer_syntax``, ``undecodable_dicom``, ``unmeasurable_image``,
    ``unreadable_file``. Raises MissingDependency where pydicom is not installed.
    """
    _pydicom()
    measured = Measured(source)
    for piece in handed(units, options):
        with _quiet() as heard:
            _instance(piece, options, measured, heard)
        if measured.full:
            yield measured.parcel()
    last = measured.parcel()
    if last:
        yield last


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise MissingDependency(
            "reading DICOM needs pydicom and its decoders",
            where="sources.dicom",
            mend="pip install 'clinloom[dicom]'",
        ) from None
    return pydicom


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Hold back what pydicom and gdcm would print: it quotes values of patients."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield heard
    finally:
        logger.disabled = before


def _instance(
    piece: FileUnit, options: Options, measured: Measured, heard: list[warnings.WarningMessage]
) -> None:
    """Measure one file, or say why not; no file fails the batch."""
    patient = record = system = None
    try:
        data = _bytes(piece)
        dataset = _dataset(data)
        patient, record = _text(dataset, "PatientID"), _text(dataset, "SOPInstanceUID")
        system = _issuer(dataset, options)
        _has_pixels(dataset, len(data), heard)
        if patient is None:
            raise _Refused("no_patient")
        time, time_text = _time(dataset, options.zone)
        if time is None and time_text is None and options.undated == "reject":
            raise _Refused("no_time")
        image = {
            "patient": patient,
            "system": system,
            "study_uid": _text(dataset, "StudyInstanceUID"),
            "series_uid": _text(dataset, "SeriesInstanceUID"),
            "sop_uid": record or piece.name,
            "modality": coded(_text(dataset, "Modality"), absent="OT"),
            "body_part": coded(_text(dataset, "BodyPartExamined"), absent="UNKNOWN"),
            "time": time,
            "time_text": time_text,
            "rows": int(dataset.Rows),
            "columns": int(dataset.Columns),
            "file": piece.name,
        }
        measured.add(image, _measurements(dataset))
        return
    except _Refused as refusal:
        reason = str(refusal.args[0])
    except DataError:
        reason = "unmeasurable_image"
    except Exception:  # a header may be broken in any way
        reason = "unreadable_dicom"
    measured.reject(piece.name, reason, record=record, patient=patient, system=system)


def _issuer(dataset: Any, options: Options) -> str | None:
    """The system of the PatientID: its issuer, as the study calls it; None: the source's own."""
    issuer = _text(dataset, "IssuerOfPatientID")
    if isinstance(options.identifiers, str):
        return None
    return (options.identifiers or {}).get(issuer or "", issuer)


def _bytes(piece: FileUnit) -> bytes:
    try:
        return piece.read()
    except Exception:  # an archive's member may be broken in any way
        raise _Refused("unreadable_file") from None


def _dataset(data: bytes) -> Any:
    """The data set of a file, with or without its preamble. Raises _Refused."""
    pydicom = _pydicom()
    marked = data[128:132] == b"DICM"
    if not marked and data[:2] not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        raise _Refused("not_dicom")  # group 0002 or 0008 comes first where there is no preamble
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=not marked)
    except (EOFError, OSError, struct.error, zlib.error):
        raise _Refused("truncated_dicom" if marked else "not_dicom") from None
    except Exception:  # a header may be broken in any way
        raise _Refused("unreadable_dicom" if marked else "not_dicom") from None
    if not marked and not str(dataset.get("SOPClassUID", "")).startswith("1.2.840.10008."):
        raise _Refused("not_dicom")
    return dataset


def _has_pixels(dataset: Any, size: int, heard: list[warnings.WarningMessage]) -> None:
    """Raise _Refused unless the pixel data are there, whole."""
    from pydicom.pixels.utils import get_expected_length

    present = [name for name in PIXELS if name in dataset]
    if not present:
        ended = _ends_early(dataset, size, heard)
        raise _Refused("truncated_dicom" if ended else "pixelless_dicom")
    if _syntax(dataset) in NATIVE:
        if len(dataset[present[0]].value or b"") < get_expected_length(dataset):
            raise _Refused("truncated_dicom")


def _ends_early(dataset: Any, size: int, heard: list[warnings.WarningMessage]) -> bool:
    """Whether the bytes ran out within an element, which pydicom takes for the end of the file.

    It warns where a sequence or fragment has no end; else the last value is short, or a few bytes
    of the next element's header follow it, or an image lacks even its size.
    """
    if not len(dataset) or any(" in file " in str(w.message) for w in heard):
        return True
    kind = dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID")
    if "Image Storage" in getattr(kind, "name", "") and "Rows" not in dataset:
        return True
    last = dataset.get_item(max(dataset.keys()))
    length, begins = getattr(last, "length", None), getattr(last, "value_tell", None)
    if length is None or begins is None or length == 0xFFFFFFFF or last.value is None:
        return False
    return bool(len(last.value) < length or 0 < size - begins - length < 8)


def _text(dataset: Any, name: str) -> str | None:
    value = dataset.get(name)
    return str(value).strip(" \0") or None if value is not None else None


def _syntax(dataset: Any) -> str:
    """The transfer syntax; without a preamble, what the bytes were found to be."""
    meta = getattr(dataset, "file_meta", None)
    written = meta.get("TransferSyntaxUID") if meta is not None else None
    if written:
        return str(written)
    implicit, little = dataset.original_encoding
    dataset.file_meta.TransferSyntaxUID = (
        IMPLICIT if implicit else EXPLICIT if little else "1.2.840.10008.1.2.2"
    )
    return str(dataset.file_meta.TransferSyntaxUID)


def _measurements(dataset: Any) -> dict[str, float]:
    """The instance's measurements; of a multi-frame one, the mean over its frames."""
    syntax = _syntax(dataset)
    if syntax in NATIVE:
        return _over_frames(dataset, "")
    from pydicom.pixels.decoders.base import get_decoder

    try:
        installed = get_decoder(syntax).available_plugins
    except NotImplementedError:
        installed = ()
    plugins = [name for name in DECODERS.get(syntax, ()) if name in installed]
    if not plugins:
        raise _Refused("unsupported_transfer_syntax")
    if "gdcm" in plugins:
        _hush_gdcm()
    for plugin in plugins:
        try:
            return _over_frames(dataset, plugin)
        except _Refused:
            continue
    raise _Refused("undecodable_dicom")


def _hush_gdcm() -> None:
    import gdcm

    for stream in ("Debug", "Warning", "Error"):
        getattr(gdcm.Trace, f"{stream}Off")()


def _over_frames(dataset: Any, plugin: str) -> dict[str, float]:
    from pydicom.pixels.utils import iter_pixels

    total: dict[str, float] = {}
    count = 0
    frames = iter_pixels(dataset, decoding_plugin=plugin)
    while True:
        try:
            stored = next(frames, None)
        except Exception:  # a decoder may fail in any way
            raise _Refused("undecodable_dicom") from None
        if stored is None:
            break
        found = measure(_intensities(stored, dataset, count))
        total = {name: total.get(name, 0.0) + value for name, value in found.items()}
        count += 1
    if not count:
        raise _Refused("undecodable_dicom")
    return {name: value / count for name, value in total.items()}


def _intensities(stored: np.ndarray, dataset: Any, frame: int) -> np.ndarray:
    """A frame as it is meant: RGB (H, W, 3) uint8, or gray in the unit of the rescale.

    MONOCHROME1 is inverted within the range of the stored values, then the rescale slope and
    intercept apply (PS3.3 C.11.1). Colour of more than 8 bits keeps its upper 8.
    """
    photometric = str(dataset.PhotometricInterpretation)
    bits = int(dataset.get("BitsStored", 8))
    if photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = apply_color_lut(stored, dataset)
        bits = stored.dtype.itemsize * 8
    if stored.ndim == 3:
        return stored if bits <= 8 else (stored >> (bits - 8)).astype(np.uint8)
    if photometric == "MONOCHROME1" and stored.dtype.kind in "iu":
        ends = -1 if stored.dtype.kind == "i" else (1 << bits) - 1  # the least plus the greatest
        stored = ends - stored.astype(np.int64)
    slope, intercept = _rescale(dataset, frame)
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if stored.dtype.kind in "iu" and slope == 1 and intercept == int(intercept):
        return stored.astype(np.int64) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _rescale(dataset: Any, frame: int) -> tuple[float, float]:
    """Slope and intercept (0028,1053), (0028,1052), of the instance or of its frame."""
    places = [dataset]
    for groups, number in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", frame),
    ):
        items = dataset.get(groups) or ()
        if number < len(items):
            places += items[number].get("PixelValueTransformationSequence") or ()
    found = [p for p in places if p.get("RescaleSlope") is not None]
    if not found:
        return 1.0, 0.0
    return float(found[-1].RescaleSlope), float(found[-1].get("RescaleIntercept") or 0.0)


def _time(dataset: Any, zone: str) -> tuple[int | None, str | None]:
    """When the image was acquired: (microseconds since 1970 UTC, or None; a text not understood).

    AcquisitionDateTime (0008,002A), else the first date with its time of Acquisition, Content,
    Series and Study, else the first date alone; ``zone``'s unless the value or
    TimezoneOffsetFromUTC (0008,0201) says otherwise.
    """
    offset = _text(dataset, "TimezoneOffsetFromUTC") or ""
    pairs = [(_text(dataset, f"{n}Date"), _text(dataset, f"{n}Time")) for n in TIMES]
    written = [_text(dataset, "AcquisitionDateTime")]
    written += [d.replace(".", "") + t.replace(":", "") for d, t in pairs if d and t]
    written += [d.replace(".", "") for d, _ in pairs if d]
    texts = [text for text in written if text]
    for text in texts:
        time = _microseconds(text, offset, zone)
        if time is not None:
            return time, None
    if not texts:
        return None, None
    return None, texts[0] + ("" if offset else mark(zone))


_MOMENT = re.compile(
    r"(\d{4})(\d{2})(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?([+-]\d{4})?"
)


def _microseconds(text: str, offset: str, zone: str) -> int | None:
    """A DICOM DT (PS3.5 table 6.2-1) down to the day or finer; None where it is not one."""
    found = _MOMENT.fullmatch(text)
    if not found:
        return None
    *parts, fraction, own = found.groups()
    year, month, day, hour, minute, second = (int(p or 0) for p in parts)
    east = re.fullmatch(r"([+-])(\d{2})(\d{2})", own or offset or "+0000")
    if not east:
        return None
    try:
        local = dt.datetime(year, month, day, hour, minute, min(second, 59))  # noqa: DTZ001
    except ValueError:
        return None
    shift = dt.timedelta(hours=int(east[2]), minutes=int(east[3]))
    known = utc(local, "UTC" if own or offset else zone)
    moment = known - shift if east[1] == "+" else known + shift
    micro = int((fraction or "0").ljust(6, "0"))
    return (moment - EPOCH) // dt.timedelta(microseconds=1) + micro
