"""Bad input, made from good: wrong types, lost and added bytes; and the law that reading keeps."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, Phase, settings

from clinloom.errors import SourceError
from clinloom.tables import PARCELS, conform

CANARY = "Canary-Meier"
SOON = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def read(kind: Any, path: Path, **options: Any) -> dict[str, list[dict[str, Any]]] | None:
    """All parcels together; None where a lawful SourceError says what to mend."""
    chosen = kind.Options.model_validate({"path": str(path), **options})
    parts: dict[str, list[pa.Table]] = {name: [] for name in PARCELS}
    try:
        for parcel in kind.read(list(kind.plan(chosen, "sources.x")), chosen, "x"):
            for name, rows in parcel.items():
                parts[name].append(conform(rows, PARCELS[name]))
    except SourceError as error:
        assert error.where and error.mend
        assert CANARY not in str(error)
        return None
    found = {n: shown(pa.concat_tables([PARCELS[n].empty, *p])) for n, p in parts.items()}
    for row in found["rejected"]:
        assert row["reason"] and row["file"] and CANARY not in row["reason"] + row["file"]
    return found


def shown(rows: pa.Table) -> list[dict[str, Any]]:
    """The rows, their times as microseconds: the cleaning refuses what no calendar has."""
    for name in ("time", "taken"):
        if name in rows.column_names:
            at = rows.column_names.index(name)
            rows = rows.set_column(at, name, rows.column(name).cast(pa.int64()))
    return rows.to_pylist()


def concept(code: str, system: str = "http://loinc.org") -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": "d"}], "text": "t"}


ABOUT = {"subject": {"reference": "Patient/p", "identifier": {"system": "s", "value": CANARY}}}
PERIOD = {"start": "2024-01-02", "end": "2024-01-03T04:05:06Z"}
QUANTITY = {"value": 1.5, "comparator": "<", "unit": "mg", "code": "mg"}
SOUND: list[dict[str, Any]] = [
    {
        "resourceType": "Patient",
        "birthDate": "1950-01-02",
        "gender": "female",
        "deceasedDateTime": "2024-02-03",
        "identifier": [{"system": "s", "value": CANARY, "type": concept("MR")}],
        "name": [{"family": CANARY}],
        "link": [{"other": {"reference": "Patient/q"}}],
        "meta": {"versionId": "1", "lastUpdated": "2024-01-02T03:04:05Z"},
    },
    {
        "resourceType": "Observation",
        "status": "final",
        "code": concept("2160-0"),
        **ABOUT,
        "issued": "2024-01-02T03:04:05Z",
        "effectiveDateTime": "2024-01-02",
        "valueQuantity": QUANTITY,
        "dataAbsentReason": concept("unknown"),
    },
    {
        "resourceType": "Observation",
        "status": "final",
        "code": concept("panel"),
        **ABOUT,
        "effectivePeriod": PERIOD,
        "component": [
            {"code": concept("a"), "valueRange": {"low": QUANTITY, "high": QUANTITY}},
            {"code": concept("b"), "valueRatio": {"numerator": QUANTITY, "denominator": QUANTITY}},
            {"code": concept("c"), "valueCodeableConcept": concept("d")},
        ],
    },
    *(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": concept("x"),
            **ABOUT,
            "effectiveInstant": "2024-01-02T03:04:05Z",
            "issued": "2024-01-02T03:04:05Z",
            name: said,
        }
        for name, said in {
            "valueString": "12",
            "valueInteger": 3,
            "valueBoolean": True,
            "valueDateTime": "2024",
            "valueTime": "10:00:00",
            "valuePeriod": PERIOD,
            "valueSampledData": {"data": "1 2"},
        }.items()
    ),
    {
        "resourceType": "Condition",
        "clinicalStatus": concept("active"),
        "verificationStatus": concept("confirmed"),
        "code": concept("44054006", "http://snomed.info/sct"),
        **ABOUT,
        "recordedDate": "2024-01-02",
        "onsetDateTime": "2023",
        "abatementDateTime": "2025-01",
    },
    {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": "IMP"},
        **ABOUT,
        "period": PERIOD,
    },
    *(
        {
            "resourceType": kind,
            "status": "completed",
            "intent": "order",
            "medicationCodeableConcept": concept(
                "1", "http://www.nlm.nih.gov/research/umls/rxnorm"
            ),
            **ABOUT,
            "authoredOn": "2024-01-02",
            "effectivePeriod": PERIOD,
            "effectiveDateTime": "2024-01-02",
            "whenHandedOver": "2024-01-02",
            "dosage": {"dose": QUANTITY},
            "contained": [{"resourceType": "Medication", "id": "m", "code": concept("2")}],
        }
        for kind in (
            "MedicationRequest",
            "MedicationAdministration",
            "MedicationDispense",
            "MedicationStatement",
        )
    ),
    {
        "resourceType": "Immunization",
        "status": "completed",
        "vaccineCode": concept("140", "http://hl7.org/fhir/sid/cvx"),
        "patient": ABOUT["subject"],
        "occurrenceDateTime": "2024-01-02",
    },
    {
        "resourceType": "Procedure",
        "status": "completed",
        "code": concept("1"),
        **ABOUT,
        "performedPeriod": PERIOD,
    },
    {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": concept("1"),
        **ABOUT,
        "issued": "2024-01-02T03:04:05Z",
    },
    {
        "resourceType": "ImagingStudy",
        "status": "available",
        **ABOUT,
        "started": "2024-01-02",
        "modality": [{"code": "CT"}],
        "series": [{"modality": {"code": "CT"}}],
    },
    {"resourceType": "Location", "name": "ward"},
]
LONGEST = "@long@"  # a whole number that no float holds
RAW = {"@huge@": "1e400", LONGEST: "1" + "0" * 400, "@minus@": "-1e400", "@nan@": "NaN"}
RAW |= {"@deep@": "[" * 10_000 + "]" * 10_000, "@half@": '"\\ud800"'}
WRONG: list[Any] = [None, True, 0, -1.5, "", CANARY, [], {}, [[]], [None], {"a": 1}, [1], *RAW]


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document but its top."""
    inside = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in inside:
        yield (*way, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*way, key))


def changed(document: Any, way: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(document)
    at = made
    for key in way[:-1]:
        at = at[key]
    at[way[-1]] = value
    return made


def written(document: Any) -> bytes:
    """As JSON, with what Python's own writer would not write."""
    text = json.dumps(document)
    for sign, raw in RAW.items():
        text = text.replace(f'"{sign}"', raw)
    return text.encode()


def begins(lines: list[bytes]) -> list[int]:
    return [0, *np.cumsum([len(line) + 1 for line in lines])[:-1].tolist()]


SIGNS = [b"\0", b"\xff", b"\xc3", b'"', b"\\", b"\n", b"\r", b",", b"{", b"]", b"\x1a"]


def mutated(data: bytes, rng: random.Random) -> bytes:
    at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2)) if data else (0, 0)
    some = rng.choice(
        [b"\0", b"\xff", b"\xc3", b'"', b"\\", b"\n", b"\r", b",", b"{", b"]", b"\x1a"]
    )
    how = rng.randrange(6)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + data[to:]
    if how == 2:
        return data[:at] + some + data[at:]
    if how == 3:
        return data[:at] + some + data[at + 1 :]
    if how == 4:
        return data[:at] + data[at:to] + data[at:]
    return data.replace(b'"status":', b'"status": 1, "id": "twice", "status":')


LONG: dict[str, Any] = {
    "patient": "pid",
    "time": {"column": "when"},
    "code": {"column": "what"},
    "value": "value",
    "unit": "unit",
}
CSV = ["pid,what,value,unit,when", *(f"{CANARY}{n},K,{n},mg,2024-01-02" for n in range(20))]
