"""Observations of the usual shape, read many at a time, give what each gives when read alone."""

from __future__ import annotations

import json
import random
import zipfile
from gzip import decompress

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from clinloom.files import Given
from clinloom.sources import fhir
from clinloom.sources._fhir import plain
from clinloom.synth._population import population
from clinloom.synth._records import Export
from clinloom.tables import PARCELS, conform

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
TIMES = (
    "2024-03-01T08:00:00Z",
    "2024-03-01T09:30:00.123+01:00",
    "2024-02-29T23:59:59-05:00",
    "2023-02-29T00:00:00Z",
    "2024-03-01T24:00:00Z",
    "2024-03-01T08:00:00.1234567Z",
    "2024-03-01T08:00:00",
    "2024-03-01",
    "2024-03",
    "2024",
    "03/01/2024 08:00",
    " 2024-03-01T08:00:00Z",
    " ",
    "",
    "soon",
)


def whole(data: bytes, **options) -> dict[str, list[dict]]:
    """Every row that a file of lines gives, table by table."""
    parts: dict[str, list[pa.Table]] = {name: [table.empty] for name, table in PARCELS.items()}
    given = fhir.Options(path="/records", **options)
    for parcel in fhir.read([Given("records.ndjson", data)], given, "ehr"):
        for name, table in parcel.items():
            parts[name].append(conform(table, PARCELS[name]))
    return {name: pa.concat_tables(tables).to_pylist() for name, tables in parts.items()}


def same(data: bytes, monkeypatch, **options) -> dict[str, list[dict]]:
    """What a file gives, which is what it gives where no line is of the usual shape."""
    found = whole(data, **options)
    with monkeypatch.context() as patch:
        patch.setattr(plain, "_decode", malformed)
        slow = whole(data, **options)
    for name, rows in slow.items():
        assert found[name] == rows, name
    return found


def malformed(line: bytes):
    raise msgspec.DecodeError("no line is of the usual shape")


def lines(resources) -> bytes:
    return b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in resources)


def hospital(patients: int = 60) -> list[bytes]:
    """The synthetic hospital's resources, types mixed as a server might write them."""
    generator = np.random.default_rng(5)
    people = population(0, patients, imaged=5, generator=generator)
    written = Export(people, seed=5, generator=generator).lines
    found = [line.encode() for kind in written.values() for line in kind]
    random.Random(5).shuffle(found)
    return found


def test_the_synthetic_hospital(monkeypatch):
    found = same(lines(hospital()), monkeypatch)
    assert len(found["events"]) > 1500 and found["rejected"] and found["ledger"]


def test_synthea(data, monkeypatch):
    path = data / "synthea_r4" / "bundles.zip"
    if not path.exists():
        pytest.skip("synthea_r4 is not in the folder of public data")
    resources = []
    with zipfile.ZipFile(path) as archive:
        for name in [n for n in archive.namelist() if not n.endswith("/")][:3]:
            text = archive.read(name)
            bundle = json.loads(decompress(text) if name.endswith(".gz") else text)
            resources += [entry["resource"] for entry in bundle["entry"]]
    found = same(lines(resources), monkeypatch)
    assert len(found["events"]) > 500 and found["ledger"]


def observation(chance: random.Random) -> dict:
    """An Observation whose every part may be of any shape that is, or is not, FHIR."""
    kept = {"resourceType": "Observation", "status": "final", "code": coded(chance)}
    kept["id"] = f"o{chance.randrange(10**6)}"
    kept["subject"] = {"reference": f"Patient/p{chance.randrange(5)}"}
    kept["effectiveDateTime"] = chance.choice(TIMES) if chance.random() < 0.3 else TIMES[0]
    kept["issued"] = chance.choice(TIMES) if chance.random() < 0.3 else TIMES[0]
    kept |= valued(chance)
    for name, values in ODD.items():
        if chance.random() < 0.03:
            kept[name] = chance.choice(values)
    for name in ("id", "code", "status", "subject", "effectiveDateTime", "issued"):
        if chance.random() < 0.04:
            kept.pop(name)
    if chance.random() < 0.1:
        kept["component"] = [
            {**({"code": coded(chance)} if chance.random() < 0.9 else {}), **valued(chance)}
            for _ in range(chance.randrange(3))
        ]
    if chance.random() < 0.1:
        parts = list(kept.items())
        chance.shuffle(parts)
        kept = dict(parts)
    return kept


def coded(chance: random.Random) -> dict:
    codes = [
        {"system": LOINC, "code": f"{chance.randrange(9)}-0", "display": "été"},
        {"system": SNOMED, "code": f"{chance.randrange(9)}"},
        {"system": "urn:oid:1.2.3", "code": f"L{chance.randrange(9)}"},
        {"code": "bare"},
        {"system": LOINC},
    ]
    count = chance.choice((1, 1, 1, 1, 2, 3, 0))
    return {"coding": chance.sample(codes, count), "text": f"as written {chance.randrange(3)}"}


def valued(chance: random.Random) -> dict:
    number = chance.choice((1.5, 2, "3.5", "3,5", "< 5", -0.0, 1e300, None))
    return chance.choice(
        [
            {"valueQuantity": {"value": 1.25, "unit": "milligrams", "code": "mg/dL"}},
            {"valueQuantity": {"value": 7, "unit": "mg"}},
            {"valueQuantity": {"value": number, "comparator": chance.choice(("<", ">", ""))}},
            {"valueQuantity": {"unit": "", "code": ""}},
            {"valueCodeableConcept": coded(chance)},
            {"valueString": chance.choice(("positive", " 12.5 ", "<0.01", ""))},
            {"valueInteger": 4},
            {"valueBoolean": chance.random() < 0.5},
            {"valueRange": {"low": {"value": 1, "unit": "mg"}, "high": {"value": 2}}},
            {"valuePeriod": {"start": TIMES[0]}},
            {"dataAbsentReason": {"text": "lost"}},
            {},
        ]
    )


ODD = {  # what any field may hold, once in a while
    "id": ("", 5, None),
    "status": ("amended", "preliminary", "entered-in-error", "cancelled", "nonsense", None, 3),
    "code": (None, {}, {"coding": None}, {"coding": [{"code": 5}]}, "text", 7, {"coding": [None]}),
    "subject": (
        None,
        {},
        {"reference": "Group/g"},
        {"reference": "https://elsewhere.example/fhir/Patient/p1"},
        {"identifier": {"system": "urn:oid:9", "value": "77"}},
        {"reference": "Patient/p1", "identifier": "wrong"},
        {"reference": 9},
    ),
    "meta": (
        {},
        {"lastUpdated": "2024-03-02T00:00:00Z", "versionId": "3"},
        {"lastUpdated": "yesterday"},
        {"lastUpdated": ""},
        {"versionId": "2"},
        {"versionId": []},
    ),
    "effectivePeriod": ({"start": TIMES[0], "end": TIMES[1]}, {}, 4),
    "effectiveInstant": (TIMES[1],),
    "hasMember": ([], [{"reference": "Observation/o1"}], [5]),
    "component": (None, [], [None], [{"code": 9}], {}),
    "resourceType": ("Patient", "Claim", None, "Condition"),
}


@pytest.mark.parametrize("codings", ["all", "first"])
@pytest.mark.parametrize("seed", range(3))
def test_observations_of_every_shape(monkeypatch, seed, codings):
    chance = random.Random(seed)
    given: list[bytes | dict] = [observation(chance) for _ in range(1200)]
    others = hospital(8)
    for _ in range(150):
        given.insert(chance.randrange(len(given)), chance.choice(others))
    for spoilt in (b"", b"  ", b"{", b"[]", b"\xff", b'{"a":1}{"a":2}', b'{"resourceType":"\xff"}'):
        given.insert(chance.randrange(len(given)), spoilt)
    zone = chance.choice(("UTC", "Europe/Berlin"))
    data = lines(given).replace(b"\n", chance.choice((b"\n", b"\r\n")))
    found = same(data, monkeypatch, codings=codings, zone=zone)
    assert len(found["events"]) > 800
    assert {r["reason"] for r in found["rejected"]} >= {"no_time", "no_patient", "no_code"}


def test_every_resource_tells_when_it_was_updated(monkeypatch):
    resources = [json.loads(line) for line in hospital(20) if line.endswith(b"}")]
    for number, resource in enumerate(resources):
        resource["meta"] = {"versionId": "1", "lastUpdated": f"2024-03-01T00:{number % 60:02}:00Z"}
    found = same(lines(resources), monkeypatch)
    assert all(e["version"] for e in found["events"] if e["record_id"].startswith("Observation"))
