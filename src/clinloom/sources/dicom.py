"""DICOM files, in folders and zip archives: each instance is measured when it is acquired.

Tags: PatientID (0010,0020), whose system is its issuer (0010,0021) unless `identifiers` names one;
Study, Series and SOP Instance UID (0020,000D), (0020,000E), (0008,0018); Modality (0008,0060);
BodyPartExamined (0018,0015); the acquisition time and its zone, see ``_images/acquired.py``. A file
is opened in a process apart, so that a damaged one costs itself alone: see ``_images/apart.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from clinloom.errors import MissingDependency
from clinloom.files import FileUnit
from clinloom.sources._frames import State
from clinloom.sources._given import FileSource, handed, opened, planned
from clinloom.sources._images.apart import examined
from clinloom.sources._images.measured import Measured
from clinloom.sources._parcel import unreadable
from clinloom.study import Duration, Zone

REQUIRES: str | None = "dicom"
LINKS = False  # whether it tells which identifiers belong together
KERNEL = "clinloom.sources._images.instance"


class Options(FileSource):
    """DICOM instances; measurements become events at the time of acquisition."""

    TELLS_SYSTEMS: ClassVar[bool] = True

    type: Literal["dicom"] = Field(default="dicom", description="which kind of source")
    undated: Literal["reject", "static"] = Field(
        default="reject",
        description="an image without any date: refuse it, or take it as known at all times",
    )
    zone: Zone | None = Field(
        default=None,
        description="IANA time zone of images that name no TimezoneOffsetFromUTC; none: UTC, which"
        " is counted and said",
    )
    available_after: Duration = Field(
        default=0,
        description="from acquisition until the image can be seen (transfer, PACS), as 15m",
    )


def plan(options: Options, where: str) -> Iterator[FileUnit | State]:
    """Its files, each whole.

    Raises SourceError where nothing is there.
    """
    return planned(options, where, lines=False)


frame = opened


def read(units: Iterable[FileUnit], options: Options, source: str) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, images, links and rejected for a group of files, or of given bytes.

    A file that is refused is in ``rejected`` by its reason: ``not_dicom``, ``truncated_dicom``,
    ``unreadable_dicom``, ``pixelless_dicom``, ``no_patient``, ``no_time``, ``implausible_time``,
    ``invalid_date``, ``unsupported_transfer_syntax``, ``decoder_missing``, ``undecodable_dicom``,
    ``unmeasurable_image``, ``unreadable_file``, ``too_large``, and where the file ends the process
    that opens it, ``decoder_crashed``, ``decoder_hung``, ``oversized_image``. Raises
    MissingDependency where pydicom is not installed.
    """
    if find_spec("pydicom") is None:
        raise MissingDependency(
            "reading DICOM needs pydicom and its decoders",
            where="sources.dicom",
            mend="pip install 'clinloom[dicom]'",
        )
    measured = Measured(source)
    told = {"zone": options.zone, "undated": options.undated, "after": options.available_after}
    for piece in handed(units, options):
        _instance(piece, options, told, measured)
        if measured.full:
            yield measured.parcel()
    last = measured.parcel()
    if last:
        yield last


def _instance(piece: FileUnit, options: Options, told: dict[str, Any], measured: Measured) -> None:
    """Measure one file, or say why not; no file fails the batch."""
    try:
        data = piece.read()
    except Exception as error:  # an archive's member may be broken in any way
        measured.reject(piece.name, unreadable(error), record=None, patient=None)
        return
    found = examined(KERNEL, data, told)
    patient, record = found.get("patient"), found.get("record")
    system = _system(found.get("issuer"), options)
    if "refused" in found:
        reason = found["refused"]
        more = {"system": system, "field": "PatientID" if reason == "no_patient" else None}
        measured.reject(piece.name, reason, record=record, patient=patient, **more)
        return
    known = {"patient": patient, "system": system, "sop_uid": record or piece.name}
    measured.add({**found["image"], **known, "file": piece.name}, found["measurements"])


def _system(issuer: str | None, options: Options) -> str | None:
    """The system of a PatientID: its issuer, as the study calls it; None: the source's own."""
    if isinstance(options.identifiers, str):
        return None
    return (options.identifiers or {}).get(issuer or "", issuer)
