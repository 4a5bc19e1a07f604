"""A DICOM instance examined, in a process apart: what its header says and its pixels measure."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clinloom.errors import DataError
from clinloom.sources._images.acquired import acquired, zoned
from clinloom.sources._images.header import Refused, content, dataset, has_pixels, text
from clinloom.sources._images.intensities import quantity
from clinloom.sources._images.measured import coded
from clinloom.sources._images.pixels import measurements
from clinloom.sources._time import ASSUMED


def examine(data: bytes, told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """``patient``, ``issuer`` and ``record``, then ``image`` and ``measurements`` (none
    of what is catalogued alone), or ``refused``: the reason.

    ``told``: the source's ``zone``, ``undated`` and ``after`` (see :func:`acquired`).
    """
    with _quiet() as heard:
        try:
            found = dataset(data)
            patient, record = text(found, "PatientID"), text(found, "SOPInstanceUID")
            issuer = text(found, "IssuerOfPatientID")
            yield {"patient": patient, "record": record, "issuer": issuer}
            kind = content(found)
            if kind == "image":
                has_pixels(found, len(data), heard)
            if patient is None:
                raise Refused("no_patient")
            image = _image(found, kind, told)
            yield {"image": image, "measurements": measurements(found) if kind == "image" else {}}
        except Refused as refusal:
            yield {"refused": refusal.args[0]}
        except DataError:
            yield {"refused": "unmeasurable_image"}
        except MemoryError:
            raise
        except Exception:  # a header may be broken in any way
            yield {"refused": "unreadable_dicom"}


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Hold back what pydicom would print, and keep what it warns of."""
    logging.getLogger("pydicom").disabled = True
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard


def _image(found: Any, kind: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """The instance's row of the images parcel, but its file. Raises Refused."""
    time, time_text = acquired(found, told["zone"] or ASSUMED, told["after"])
    dated = time is not None or time_text is not None
    if kind == "image" and not dated and told["undated"] == "reject":
        raise Refused("no_time")
    rows, columns = (found.get(name) for name in ("Rows", "Columns"))
    return {
        "study_uid": text(found, "StudyInstanceUID"),
        "series_uid": text(found, "SeriesInstanceUID"),
        "modality": coded(text(found, "Modality"), absent="OT"),
        "body_part": coded(text(found, "BodyPartExamined"), absent="UNKNOWN"),
        "view": text(found, "ViewPosition"),
        "laterality": text(found, "ImageLaterality") or text(found, "Laterality"),
        "manufacturer": text(found, "Manufacturer"),
        "burned_in": {"YES": True, "NO": False}.get(text(found, "BurnedInAnnotation") or ""),
        "content": kind,
        "quantity": quantity(found) if kind == "image" else None,
        "time": time,
        "time_text": time_text,
        "zoneless": dated and told["zone"] is None and not zoned(found),
        "rows": int(rows) if rows else None,
        "columns": int(columns) if columns else None,
    }
