"""A DICOM file's header: its data set, what it says, and whether its pixels are there.

DICOM PS3.10 (the file), PS3.5 section 7 (the data set) and annex A (transfer syntaxes).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
NATIVE = {IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
MOST_PIXELS = 90_000_000  # of a frame; the largest radiographs have 30 million
_STORAGE = "1.2.840.10008.5.1.4.1.1."
CONTENTS = {  # a UID, or where one begins
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}66.7": "segmentation",  # label map
    f"{_STORAGE}481.2": "dose",
    f"{_STORAGE}88.": "report",  # structured
    f"{_STORAGE}104.": "report",  # an encapsulated document
}
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


class Refused(Exception):
    """A file is refused; ``args[0]`` is the reason."""


def dataset(data: bytes) -> Any:
    """The data set of a file, with or without its preamble. Raises Refused."""
    import pydicom

    marked = data[128:132] == b"DICM"
    if not marked and data[:2] not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        raise Refused("not_dicom")  # group 0002 or 0008 comes first where there is no preamble
    try:
        found = pydicom.dcmread(io.BytesIO(data), force=not marked)
    except (EOFError, OSError, struct.error, zlib.error):
        raise Refused("truncated_dicom" if marked else "not_dicom") from None
    except MemoryError:
        raise
    except Exception:  # a header may be broken in any way
        raise Refused("unreadable_dicom" if marked else "not_dicom") from None
    if not marked and not str(found.get("SOPClassUID", "")).startswith("1.2.840.10008."):
        raise Refused("not_dicom")
    return found


def content(dataset: Any) -> str:
    """What an instance holds: ``image``, or what is no patient's picture and is not measured.

    ``segmentation``, ``dose``, ``report`` by SOP Class (PS3.4 B.5); ``localizer`` by the third
    value of Image Type (0008,0008), C.8.2.1.1.1.
    """
    kind = text(dataset, "SOPClassUID") or ""
    for begin, name in CONTENTS.items():
        if kind == begin or (begin.endswith(".") and kind.startswith(begin)):
            return name
    values = dataset.get("ImageType") or ()
    values = [values] if isinstance(values, str) else list(values)
    return "localizer" if "LOCALIZER" in [str(v).strip().upper() for v in values] else "image"


def has_pixels(dataset: Any, size: int, heard: list[warnings.WarningMessage]) -> None:
    """Raise Refused unless the pixel data are there, whole, and no frame is a bomb."""
    from pydicom.pixels.utils import get_expected_length

    present = [name for name in PIXELS if name in dataset]
    if present and dataset[present[0]].value is None:  # of length 0; b"" is a value that breaks off
        raise Refused("pixelless_dicom")
    if not present:
        ended = _ends_early(dataset, size, heard)
        raise Refused("truncated_dicom" if ended else "pixelless_dicom")
    if int(dataset.Rows) * int(dataset.Columns) > MOST_PIXELS:
        raise Refused("oversized_image")
    if syntax(dataset) in NATIVE:
        if len(dataset[present[0]].value or b"") < get_expected_length(dataset):
            raise Refused("truncated_dicom")


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


def text(dataset: Any, name: str) -> str | None:
    """A tag's value as a text without padding; None where it is absent or empty."""
    value = dataset.get(name)
    return str(value).strip(" \0") or None if value is not None else None


def syntax(dataset: Any) -> str:
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
