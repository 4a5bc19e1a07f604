"""Measured images on their way out of an image source: the parcels of events, images, refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from clinloom.sources._parcel import zones
from clinloom.tables import (
    LEDGER,
    PARCEL_EVENTS,
    PARCEL_IMAGES,
    PARCEL_LINKS,
    PARCEL_REJECTED,
    TIME,
    conform,
)

AT_ONCE = 200  # images a parcel: about 40,000 events in colour
USUAL = {"CT": "HU", "PT": "GML"}  # the unit that a modality's code means, where it has one
UCUM = {  # of the units that DICOM names (PS3.3 C.8.9.1.1.3, C.11.1.1.2)
    "HU": "[hnsf'U]",
    "GML": "g/mL",
    "BQML": "Bq/mL",
    "CNTS": "{counts}",
    "CPS": "{counts}/s",
    "CM2ML": "cm2/mL",
    "MGML": "mg/mL",
    "PCNT": "%",
    "OD": "{optical_density}",
}
SAME_UNIT = {  # measurements in the unit of the pixels
    f"firstorder_{name}"
    for name in (
        *("mean", "median", "minimum", "maximum", "percentile_10", "percentile_90"),
        *("iqr", "range", "mad", "robust_mad", "rms"),
    )
}


class Measured:
    """Collects images until there are enough for a parcel.

    An image's measurements are events with its time, code
    ``IMAGE//<modality>//<body part>//<measurement>`` and its own identity as ``record_id``. Pixels
    in another unit than the modality's usual one have it in their code, behind the modality:
    ``PT_BQML`` (``PT`` is SUV by body weight). Measurements in the pixels' unit tell it.
    """

    def __init__(self, source: str):
        self._source = source
        self._clear()

    def _clear(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._measurements: list[Mapping[str, float]] = []
        self._rejected: list[dict[str, Any]] = []
        self._zoneless = 0

    @property
    def full(self) -> bool:
        """Whether it is time to hand a parcel on."""
        return len(self._images) >= AT_ONCE or len(self._rejected) >= 50 * AT_ONCE

    def add(self, image: Mapping[str, Any], measurements: Mapping[str, float]) -> None:
        """An image, as a row of the images parcel, and its measurements.

        ``time`` is in microseconds since 1970 UTC or None; ``time_text`` a time that is still to
        be read; ``system``, where it is told, the one of the patient's identifier; ``zoneless``:
        whether nobody tells the zone of its time. Without measurements it is catalogued alone.
        """
        self._zoneless += bool(image.get("zoneless"))
        self._images.append({**image, "source": self._source})
        self._measurements.append(measurements)

    def reject(
        self,
        file: str,
        reason: str,
        *,
        record: str | None,
        patient: str | None,
        system: str | None = None,
        field: str | None = None,
    ) -> None:
        """A file or record that is refused; ``field``: what in it is at fault."""
        self._rejected.append(
            {
                "patient": patient,
                "system": system,
                "source": self._source,
                "record_id": record,
                "stage": "acquire",
                "reason": reason,
                "field": field,
                "file": file,
            }
        )

    def parcel(self) -> dict[str, pa.Table]:
        """What was collected since the last parcel; empty tables are left out."""
        out: dict[str, pa.Table] = {}
        if self._images:
            out["images"] = self._rows()
            if any(self._measurements):
                out["events"] = self._events()
            seen = sorted({(i.get("system") or "", i["patient"]) for i in self._images})
            patients = pa.array([patient for _, patient in seen], pa.string())
            links = pa.table([patients, patients], schema=PARCEL_LINKS.arrow)
            systems = [system or None for system, _ in seen]
            out["links"] = _of(_of(links, "system", systems), "other_system", systems)
        if self._rejected:
            systems = [row["system"] for row in self._rejected]
            out["rejected"] = _of(PARCEL_REJECTED.rows(self._rejected), "system", systems)
        if told := zones(self._source, self._zoneless):
            out["ledger"] = LEDGER.rows(told)
        self._clear()
        return out

    def _rows(self) -> pa.Table:
        columns = {n: [i.get(n) for i in self._images] for n in PARCEL_IMAGES.arrow.names}
        columns["time"] = pa.array(columns["time"], pa.int64()).cast(TIME)
        rows = conform(pa.table(columns), PARCEL_IMAGES)
        return _of(rows, "system", [i.get("system") for i in self._images])

    def _events(self) -> pa.Table:
        counts = [len(m) for m in self._measurements]

        def each(name: str, type_: pa.DataType) -> pa.Array:
            values = pa.array([i.get(name) for i in self._images], type_)
            return values.take(pa.array(owner, pa.int64()))

        owner = [n for n, count in enumerate(counts) for _ in range(count)]
        codes = [
            f"{prefix}//{name}"
            for prefix, found in zip(map(_prefix, self._images), self._measurements, strict=True)
            for name in found
        ]
        quantities = [
            UCUM.get(q, f"{{{q}}}") if (q := i.get("quantity")) else None for i in self._images
        ]
        units = [
            unit if name in SAME_UNIT else None
            for unit, found in zip(quantities, self._measurements, strict=True)
            for name in found
        ]
        values = [value for found in self._measurements for value in found.values()]
        columns = {
            "patient": each("patient", pa.string()),
            "time": each("time", pa.int64()).cast(TIME),
            "code": pa.array(codes, pa.string()),
            "numeric_value": pa.array(values, pa.float64()),
            "unit": pa.array(units, pa.string()),
            "source": each("source", pa.string()),
            "record_id": each("sop_uid", pa.string()),
            "time_text": each("time_text", pa.string()),
        }
        rows = conform(pa.table(columns), PARCEL_EVENTS)
        return _of(rows, "system", each("system", pa.string()))


def _of(rows: pa.Table, name: str, systems: Sequence[str | None] | pa.Array) -> pa.Table:
    """The rows with the systems of their identifiers, where any is told."""
    column = systems if isinstance(systems, pa.Array) else pa.array(systems, pa.string())
    return rows.append_column(name, column) if column.null_count < len(column) else rows


def _prefix(image: Mapping[str, Any]) -> str:
    kind, quantity = image["modality"], image.get("quantity")
    if quantity and USUAL.get(kind) != quantity:
        kind = f"{kind}_{quantity}"
    return f"IMAGE//{kind}//{image['body_part']}"


def _ucum(quantity: str | None) -> str | None:
    return UCUM.get(quantity, f"{{{quantity}}}") if quantity else None


def coded(text: str | None, *, absent: str) -> str:
    """A modality or body part as a part of a code: upper case, without gaps and slashes."""
    return "_".join(str(text or "").upper().replace("/", " ").split()) or absent
