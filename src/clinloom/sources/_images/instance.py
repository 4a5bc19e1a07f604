"""A DICOM instance examined, in a process apart: what its header says and its pixels measure."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clinloom.errors import DataError
from clinloom.sources._images.acquired import acquired
from clinloom.sources._images.header import Refused, dataset, has_pixels, text
from clinloom.sources._images.measured import coded
from clinloom.sources._images.pixels import measurements


def examine(data: bytes, told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """``patient`` and ``record``, then ``image`` and ``measurements``, or ``refused``: the reason.

    ``told``: the source's ``zone``, ``undated`` and ``after`` (see :func:`acquired`).
    """
    with _quiet() as heard:
        try:
            found = dataset(data)
            patient, record = text(found, "PatientID"), text(found, "SOPInstanceUID")
            yield {"patient": patient, "record": record}
            has_pixels(found, len(data), heard)
            if patient is None:
                raise Refused("no_patient")
            yield {"image": _image(found, told), "measurements": measurements(found)}
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


def _image(found: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """The instance's row of the images parcel, but its file. Raises Refused."""
    time, time_text = acquired(found, told["zone"], told["after"])
    if time is None and time_text is None and told["undated"] == "reject":
        raise Refused("no_time")
    return {
        "study_uid": text(found, "StudyInstanceUID"),
        "series_uid": text(found, "SeriesInstanceUID"),
        "modality": coded(text(found, "Modality"), absent="OT"),
        "body_part": coded(text(found, "BodyPartExamined"), absent="UNKNOWN"),
        "time": time,
        "time_text": time_text,
        "rows": int(found.Rows),
        "columns": int(found.Columns),
    }
