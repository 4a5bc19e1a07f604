"""A later version of a record tells of another patient: the earlier patient's fact is gone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.test_fhir_source import observation

from clinloom.clean import clean
from clinloom.deploy.door import Door
from clinloom.files import Given
from clinloom.identity import names, records
from clinloom.run import acquire
from clinloom.sources import fhir
from clinloom.tables import ACQUIRED, REFUSED, conform

WHO = names.namings({"ehr": (None, True)})["ehr"]


def version(number, patient, status="final", record="o1", **more):
    told = {"versionId": str(number), "lastUpdated": f"2024-03-0{number}T00:00:00Z"}
    about = {"subject": {"reference": f"Patient/{patient}"}, "meta": told}
    return observation(
        id=record,
        status=status,
        issued="2024-03-01T08:00:00Z",
        valueInteger=number,
        **about,
        **more,
    )


def told(*resources):
    """What these tell by subjects (ACQUIRED, REFUSED)."""
    data = b"\n".join(json.dumps(r).encode() for r in resources)
    parcels = fhir.read([Given("all.ndjson", data)], fhir.Options(path="/x"), "ehr")
    made = [names.named(parcel, WHO) for parcel in parcels]
    found = [
        pa.concat_tables([t.empty, *(conform(p[name], t) for p in made if name in p)])
        for name, t in (("events", ACQUIRED), ("rejected", REFUSED))
    ]
    events = found[0].sort_by([(n, "ascending") for n in ("subject_id", "time", "code")])
    return events, found[1]


def cleaned(*resources):
    """The patients' numbers that are left, and why the others went."""
    events, refused = told(*resources)
    refused = records.corrected(events, refused)
    made = clean(events, {}, refused)
    names_of = {subject(name): name for name in "abc"}
    left = {}
    for row in made["events"].to_pylist():
        left.setdefault(names_of[row["subject_id"]], []).append(row["numeric_value"])
    gone = [(names_of[r["subject_id"]], r["reason"]) for r in made["rejected"].to_pylist()]
    return left, sorted(gone)


def subject(name):
    [number] = names.hashed(names.texts("#ehr", pa.array([f"Patient/{name}"])))
    return int(number)


@pytest.mark.parametrize(
    ("versions", "left", "gone"),
    [
        ([version(1, "a"), version(2, "b")], {"b": [2.0]}, [("a", "reassigned")]),
        (
            [version(1, "a"), version(2, "a"), version(3, "b"), version(4, "c", record="o2")],
            {"b": [3.0], "c": [4.0]},
            [("a", "reassigned")] * 2,
        ),
        (
            [version(1, "a"), version(2, "b"), version(3, "a")],  # and back again
            {"a": [3.0]},
            [("a", "superseded"), ("b", "reassigned")],
        ),
        ([version(1, "a"), version(2, "b", "entered-in-error")], {}, [("a", "withdrawn")]),
        (
            [version(1, "a"), version(2, "a", "entered-in-error"), version(3, "b")],
            {"b": [3.0]},
            [("a", "withdrawn")],
        ),
        ([version(1, "a"), version(1, "b")], {"a": [1.0], "b": [1.0]}, []),  # no order
        ([version(1, "a"), version(2, "a")], {"a": [2.0]}, [("a", "superseded")]),
    ],
)
def test_the_last_version_says_whose_a_record_is(versions, left, gone):
    for order in (versions, versions[::-1]):
        assert cleaned(*order) == (left, gone)


def test_a_panel_goes_with_all_its_parts():
    part = [{"code": {"coding": [{"code": "x", "system": "y"}]}, "valueInteger": 7}]
    left, gone = cleaned(version(1, "a", component=part), version(2, "b"))
    assert left == {"b": [2.0]} and gone == [("a", "reassigned")] * 2


def test_a_request_of_several_patients_goes_by_the_same_rule():
    sources = {"ehr": fhir.Options(path="/x")}
    nothing = SimpleNamespace(importance=np.zeros)
    bundle = SimpleNamespace(scorer=nothing, features=[], resolved=SimpleNamespace(sources=sources))
    given = [version(1, "a"), version(2, "b"), version(3, "c", record="o2")]
    given.append(version(3, "c", "entered-in-error", record="o1"))
    facts = Door(bundle).fhir(given, several=True)
    left = clean(facts.events, {}, facts.refused)["events"].column("subject_id").to_pylist()
    assert left == [subject("c")]
    assert len(records.refusals(facts.refused)) == 1


def test_what_another_version_takes_back_is_no_refusal_of_the_source():
    nobody = {**version(1, "a"), "subject": None}
    events, refused = told(version(1, "a"), version(2, "b"), version(3, "c", "cancelled"), nobody)
    both = records.corrected(events, refused)
    assert both.num_rows == 4 and records.refusals(both).equals(refused)


def test_files_that_spark_opens_tell_whose_their_records_are():
    sources = {"ehr": fhir.Options(path="/x", open="spark")}
    data = b"\n".join(json.dumps(r).encode() for r in (version(1, "a"), version(2, "b")))
    opened = pa.table({"path": ["file:/x/all.ndjson"], "content": [data]})
    made = acquire._rows(iter([opened]), name="ehr", sources=sources, alone=False)
    assert len(records.contested(p["records"] for p in made if "records" in p)) == 1


def test_records_are_known_again_by_their_hashes_however_they_are_cut():
    events, refused = told(
        *(version(1 + n % 3, "abc"[n % 3], record=f"o{n % 5}") for n in range(15))
    )
    whole = records.claims({"events": events, "rejected": refused})
    cut = [records.claims({"events": events.slice(n, 1)}) for n in range(15)]
    several = records.contested([whole])
    assert len(several) == 5
    assert np.array_equal(several, records.contested(cut))
    assert not records.claims({"events": told(observation(issued="2024"))[0]}).num_rows


def test_names_of_every_length_have_hashes_of_their_own():
    names_of = [f"{kind}/{'x' * n}{n}" for kind in ("Observation", "Condition") for n in range(90)]
    names_of += ["", *"abc", "Observation/1", "Observation/01", "Bbservation/1", "\0", "\0\0"]
    table = pa.table({"record_id": names_of, "source": ["ehr"] * len(names_of)})
    found = records._keys(table)
    assert len(set(found.tolist())) == len(names_of) and (found >= 0).all()
    alone = [records._keys(table.slice(n, 1))[0] for n in range(len(names_of))]
    assert np.array_equal(alone, found)
    other = table.set_column(1, "source", pa.array(["lab"] * len(names_of)))
    assert not (records._keys(other) == found).any()
