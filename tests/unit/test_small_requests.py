"""What is made quick for one patient's request gives what it gives for many."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from tests.service import made

from clinloom import hashing
from clinloom.files import Given
from clinloom.identity.subjects import hashed
from clinloom.sources import fhir
from clinloom.sources._fhir import resources as r4
from clinloom.sources._time import FEW, instants


def read(data: bytes, name: str = "r.json") -> dict[str, pa.Table]:
    [parcel] = fhir.read([Given(name, data)], fhir.Options(path="x", zone="UTC"), "ehr")
    return parcel


@pytest.mark.parametrize("number", [1, 2])
def test_a_bundle_tells_what_its_resources_tell_one_by_one(number):
    body = made.body(number)
    lines = b"\n".join(bytes(entry.resource) for entry in r4.decode(body).entry)
    whole, each = read(body), read(lines, "r.ndjson")
    assert whole["events"].equals(each["events"]) and whole["links"].equals(each["links"])
    refused = [parcel["rejected"].drop_columns(["file", "position"]) for parcel in (whole, each)]
    assert refused[0].equals(refused[1])
    for position, name in zip(
        *(whole["rejected"].column(n).to_pylist() for n in ("position", "record_id")), strict=True
    ):
        assert body[position:].startswith(b'{"resourceType": "Observation", "id": "')
        assert name.split("/")[1].encode() in body[position : position + 60]


def test_an_observation_of_a_patient_at_an_address_in_the_bundle():
    about = {"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"}
    bundle = made.patient(1, observations=5)
    for entry in bundle["entry"]:
        if "subject" in entry["resource"]:
            entry["resource"]["subject"] = about
    bundle["entry"][0]["fullUrl"] = about["reference"]
    moved = read(json.dumps(bundle).encode())
    as_named = read(made.body(1, observations=5))
    assert moved["events"].equals(as_named["events"])


def test_an_observation_whose_code_is_none_is_refused_where_it_stands():
    bundle = made.patient(1, observations=3)
    bundle["entry"][-1]["resource"]["code"] = 5
    body = json.dumps(bundle).encode()
    [row] = read(body)["rejected"].to_pylist()
    assert row["reason"] == "malformed_resource" and row["record_id"].endswith("-o2")
    assert body[row["position"] :].startswith(b'{"resourceType": "Observation", "id": "p1-o2"')


def test_a_part_is_found_where_it_begins_and_not_where_another_begins_alike():
    part = b'{"resourceType":"Observation","id":"abcdefghijklmnopqrstuvwxyz"}'
    other = part.replace(b"xyz", b"xy ")
    data = other + b"," + part
    assert r4.place(data, part, 0) == len(other) + 1
    assert r4.place(data, part, len(data)) == len(data)


def test_few_texts_hash_as_many_do():
    for length in range(70):
        octets = np.random.default_rng(length).integers(0, 256, (1, length), np.uint8)
        assert hashing.xxhash64_one(octets.tobytes()) == int(hashing.xxhash64(octets)[0])
    texts = [f"#ehr|Patient/{'ä' * n}" for n in range(9)]
    assert hashed(pa.array(texts)).tolist() == [int(hashed(pa.array([t]))[0]) for t in texts]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_few_times_are_read_as_many_are(zone):
    odd = ["1950", "1950-06", " 1950-06-12 ", "2024-03-31T02:30:00", "2024-02-29T10:00:00+01:00"]
    odd += ["2024-02-30", "soon", "", None, "2024-02-29", "2024-10-27T02:30:00", "0000-01-01"]
    plain = "2024-03-05T08:00:00Z"
    many = instants(
        pa.array([plain, *odd, *(f"200{n}-01-0{n}" for n in range(1, FEW + 2))]), zone=zone
    )
    for at, text in enumerate(odd, 1):
        few = instants(pa.array([plain, text], pa.string()), zone=zone)
        assert few.time[1] == many.time[at] and few.text[1] == many.text[at]
        assert few.earlier[1] == many.earlier[at]
