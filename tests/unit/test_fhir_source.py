"""FHIR R4 resources become events: codes, times of release, whose they are, and what is refused."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import zipfile

import pyarrow as pa
import pytest

from clinloom import files
from clinloom.sources import fhir
from clinloom.tables import PARCELS, conform

UTC = dt.UTC
LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"


def concept(code="2160-0", system=LOINC):
    return {"coding": [{"system": system, "code": code}]}


def observation(**fields):
    base = {"resourceType": "Observation", "id": "o1", "status": "final", "code": concept()}
    return {**base, "subject": {"reference": "Patient/p1"}, **fields}


def resource(kind, **fields):
    return {"resourceType": kind, "id": "r1", "subject": {"reference": "Patient/p1"}, **fields}


def read(tmp_path, *resources, name="all.ndjson", **options):
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in resources]
    (tmp_path / name).write_bytes(b"\n".join([*lines, b""]))
    return tables(list(files.listing(str(tmp_path))), str(tmp_path), **options)


def tables(pieces, path, **options):
    """All parcels together, conforming to their declarations."""
    parts: dict[str, list[pa.Table]] = {name: [] for name in PARCELS}
    for parcel in fhir.read(pieces, fhir.Options(path=path, **options), "ehr"):
        for name, table in parcel.items():
            parts[name].append(conform(table, PARCELS[name]))
    return {n: pa.concat_tables([PARCELS[n].empty, *p]).to_pylist() for n, p in parts.items()}


def others(tmp_path, *resources, **options):
    """The links of some resources: each patient, the other's system and the other."""
    read(tmp_path, *resources, **options)
    chosen = fhir.Options(path=str(tmp_path), **options)
    found = set()
    for parcel in fhir.read(list(files.listing(str(tmp_path))), chosen, "ehr"):
        for row in parcel["links"].to_pylist():
            found.add((row["patient"], row.get("other_system"), row["other"]))
    return found


def test_a_result_is_known_when_it_is_released(tmp_path):
    found = read(
        tmp_path,
        observation(
            effectiveDateTime="2024-03-01T08:00:00+01:00",
            issued="2024-03-01T09:30:00.500+01:00",
            valueQuantity={"value": 1.2, "unit": "milligrams", "code": "mg/dL"},
        ),
    )
    assert found["events"] == [
        {
            "patient": "Patient/p1",
            "time": dt.datetime(2024, 3, 1, 8, 30, 0, 500_000, UTC),
            "code": "LOINC//2160-0",
            "numeric_value": 1.2,
            "text_value": None,
            "unit": "mg/dL",
            "source": "ehr",
            "record_id": "Observation/o1",
            "earlier": 5_400_500_000,
            "time_text": None,
            "version": None,
        }
    ]
    assert found["links"] == [{"patient": "Patient/p1", "other": "Patient/p1"}]
    assert not found["ledger"] and not found["rejected"]


def test_a_result_is_never_known_before_it_was_made(tmp_path):
    made, issued = "2024-03-01T08:00:00Z", "2024-03-01T07:00:00Z"
    found = read(tmp_path, observation(effectiveDateTime=made, issued=issued))
    assert found["events"][0]["time"] == dt.datetime(2024, 3, 1, 8, tzinfo=UTC)
    assert told(found) == [("LOINC//2160-0", "released_early", "timed_by_sample", 1)]


def test_a_result_without_a_release_is_counted_and_may_have_a_delay(tmp_path):
    given = observation(effectiveDateTime="2024-03-01T08:00:00Z")
    found = read(tmp_path, given, given)
    assert [e["time"].hour for e in found["events"]] == [8, 8]
    assert told(found) == [("LOINC//2160-0", "no_release", "timed_by_sample", 2)]
    found = read(tmp_path, given, delays={"SNOMED//*": "1d", "LOINC//*": "90m"})
    assert found["events"][0]["time"] == dt.datetime(2024, 3, 1, 9, 30, tzinfo=UTC)
    assert told(found) == [("LOINC//2160-0", "no_release", "timed_by_delay", 1)]


def told(found):
    return [(r["code"], r["rule"], r["action"], r["count"]) for r in found["ledger"]]


def test_a_local_time_is_of_the_sources_zone(tmp_path):
    times = ("2024-07-01T12:00:00", "2024-07-01T12:00:00Z", "2024-07-01", "01/07/2024")
    given = [observation(effectiveDateTime=time) for time in times]
    found = read(tmp_path, *given, zone="Europe/Berlin")["events"]
    told = [event["time"] and (event["time"].day, event["time"].hour) for event in found]
    assert told == [(1, 10), (1, 12), (1, 21), None]
    assert found[3]["time_text"] == "01/07/2024[Europe/Berlin]"


def test_a_late_result_is_counted(tmp_path):
    late = observation(effectiveDateTime="2024-03-01", issued="2024-03-02T00:00:01Z")
    punctual = observation(effectiveDateTime="2024-03-01", issued="2024-03-02T00:00:00Z")
    unissued = observation(effectiveDateTime="2024-03-01")
    found = read(tmp_path, late, late, punctual, unissued, zone="UTC")
    assert told(found) == [
        ("LOINC//2160-0", "late_result", "timed_by_release", 2),
        ("LOINC//2160-0", "no_release", "timed_by_sample", 1),
    ]


@pytest.mark.parametrize(
    "value, number, text",
    [
        ({"valueQuantity": {"value": 3}}, 3.0, None),
        ({"valueQuantity": {"value": "3.5"}}, 3.5, None),
        ({"valueQuantity": {"value": "3,5"}}, None, "3,5"),
        ({"valueQuantity": {"value": 0.1, "comparator": "<"}}, 0.1, "<0.1"),
        ({"valueQuantity": {"unit": "mg"}}, None, ""),
        ({"valueCodeableConcept": concept("260385009", SNOMED)}, None, "SNOMED//260385009"),
        ({"valueCodeableConcept": {"text": "clear"}}, None, "clear"),
        ({"valueString": "positive"}, None, "positive"),
        ({"valueString": " 12.5 "}, 12.5, None),
        ({"valueString": "< 0.01"}, 0.01, "<0.01"),
        ({"valueString": "<5 (low)"}, None, "<5 (low)"),
        ({"valueInteger": 4}, 4.0, None),
        ({"valueBoolean": True}, 1.0, "true"),
        ({"valueBoolean": False}, 0.0, "false"),
        (
            {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}},
            None,
            "1:128",
        ),
        ({"valueRange": {"low": {"value": 2}, "high": {"value": 5}}}, None, "2-5"),
        ({"valueSampledData": {"data": "1 2"}}, None, None),
        ({}, None, ""),
        ({"dataAbsentReason": concept("unknown")}, None, ""),
    ],
)
def test_every_kind_of_value(tmp_path, value, number, text):
    (event,) = read(tmp_path, observation(effectiveDateTime="2024-03-01", **value))["events"]
    assert (event["numeric_value"], event["text_value"]) == (number, text)


def test_a_panel_speaks_by_its_components(tmp_path):
    parts = [
        {"code": concept("8480-6"), "valueQuantity": {"value": 120, "code": "mm[Hg]"}},
        {"code": concept("8462-4"), "valueQuantity": {"value": 80, "code": "mm[Hg]"}},
    ]
    found = read(
        tmp_path,
        observation(code=concept("85354-9"), effectiveDateTime="2024-03-01", component=parts),
    )["events"]
    assert [(e["code"], e["numeric_value"]) for e in found] == [
        ("LOINC//8480-6", 120.0),
        ("LOINC//8462-4", 80.0),
    ]
    assert {e["record_id"] for e in found} == {"Observation/o1"}


def test_a_component_without_a_code_is_refused_alone(tmp_path):
    parts = [
        {"code": concept("8480-6"), "valueQuantity": {"value": 120, "code": "mm[Hg]"}},
        {"code": {"text": "diastolic"}, "valueQuantity": {"value": 80, "code": "mm[Hg]"}},
    ]
    given = observation(code=concept("85354-9"), effectiveDateTime="2024-03-01", component=parts)
    found = read(tmp_path, given)
    assert [(e["code"], e["numeric_value"]) for e in found["events"]] == [("LOINC//8480-6", 120.0)]
    assert [(r["reason"], r["record_id"]) for r in found["rejected"]] == [
        ("no_code", "Observation/o1")
    ]


@pytest.mark.parametrize("dose", [{"value": 5, "unit": "mg"}, {"unit": "mg"}, {}, None])
def test_a_medicine_was_given_though_its_dose_is_not_told(tmp_path, dose):
    given = resource(
        "MedicationAdministration",
        status="completed",
        medicationCodeableConcept=concept(),
        effectiveDateTime="2024-03-01",
        dosage={"dose": dose} if dose is not None else None,
    )
    (event,) = read(tmp_path, given)["events"]
    assert event["text_value"] is None  # an empty one: a value that was due
    assert event["numeric_value"] == (dose or {}).get("value")


@pytest.mark.parametrize(
    "text, time",
    [
        ("2024-03-01T08:00:00Z", dt.datetime(2024, 3, 1, 8, tzinfo=UTC)),
        ("2024-03-01T08:00:00-05:00", dt.datetime(2024, 3, 1, 13, tzinfo=UTC)),
        ("2024-03-01T08:00:00.123456789Z", dt.datetime(2024, 3, 1, 8, 0, 0, 123456, UTC)),
        ("2024-03-01T08:00:00", dt.datetime(2024, 3, 1, 8, tzinfo=UTC)),
        ("2024-03-01", dt.datetime(2024, 3, 1, 23, 59, 59, 999_999, UTC)),
        ("2024-03", dt.datetime(2024, 3, 31, 23, 59, 59, 999_999, UTC)),
        ("2024", dt.datetime(2024, 12, 31, 23, 59, 59, 999_999, UTC)),
        ("2024-02-30", None),
        ("01/03/2024", None),
        ("2024-03-01 08:00", None),
        ("20240301080000", None),
        ("2024-13", None),
        ("yesterday", None),
    ],
)
@pytest.mark.parametrize("beside", [None, "2024-01-01T00:00:00Z", "2024-01-01", "garbage"])
def test_times_are_iso_8601_or_stay_text_whatever_stands_beside(tmp_path, text, time, beside):
    rows = [observation(effectiveDateTime=text)]
    rows += [observation(effectiveDateTime=beside)] if beside else []
    event = read(tmp_path, *rows)["events"][0]
    assert event["time"] == time
    assert event["time_text"] == (None if time else text)


def test_a_patient_gives_birth_gender_death_and_identities(tmp_path):
    person = {
        "resourceType": "Patient",
        "id": "p1",
        "identifier": [
            {"system": "urn:ssn", "value": "999"},
            {"type": concept("MR", "v2-0203"), "system": "urn:mrn", "value": "M7"},
        ],
        "gender": "female",
        "birthDate": "1950-02",
        "deceasedDateTime": "2024-03-01T00:00:00Z",
        "link": [{"type": "replaces", "other": {"reference": "Patient/p0"}}],
    }
    found = read(tmp_path, person)
    assert [(e["code"], e["time"] and e["time"].year) for e in found["events"]] == [
        ("MEDS_BIRTH", 1950),
        ("GENDER//female", None),
        ("MEDS_DEATH", 2024),
    ]
    records = {("Patient/p1", None, p) for p in ("Patient/p1", "Patient/p0")}
    assert others(tmp_path, person) == records | {("Patient/p1", "urn:mrn", "M7")}
    [left] = [r for r in found["ledger"] if r["rule"] == "identifier_system"]
    assert (left["code"], left["action"], left["count"]) == ("urn:ssn", "not_linked", 1)
    ssn = {("Patient/p1", "urn:ssn", "999")}
    assert others(tmp_path, person, identifiers="urn:ssn") == records | ssn
    mapped = others(tmp_path, person, identifiers={"urn:ssn": "ssn", "urn:mrn": "mrn"})
    assert mapped - records == {("Patient/p1", "ssn", "999"), ("Patient/p1", "mrn", "M7")}
    del person["identifier"][1]
    assert others(tmp_path, person) == records | ssn


def test_a_death_without_a_time_is_not_known_at_all_times(tmp_path):
    person = {"resourceType": "Patient", "id": "p1", "deceasedBoolean": True}
    found = read(tmp_path, person)
    assert not found["events"]
    assert [r["reason"] for r in found["rejected"]] == ["no_time"]


@pytest.mark.parametrize(
    "given, events",
    [
        (
            resource(
                "Encounter",
                **{"class": {"code": "IMP"}},
                period={"start": "2024-03-01", "end": "2024-03-04"},
            ),
            [("ENCOUNTER//IMP//START", 1), ("ENCOUNTER//IMP//END", 4)],
        ),
        (
            resource("Encounter", **{"class": {"code": "IMP"}}, period={"start": "2024-03-01"}),
            [("ENCOUNTER//IMP//START", 1)],
        ),
        (
            resource(
                "Condition",
                code=concept("J96.01", "http://hl7.org/fhir/sid/icd-10-cm"),
                onsetDateTime="2024-03-01",
                recordedDate="2024-03-02",
            ),
            [("ICD10CM//J96.01", 2)],
        ),
        (
            resource("Condition", code=concept("1", SNOMED), onsetDateTime="2024-03-01"),
            [("SNOMED//1", 1)],
        ),
        (
            resource(
                "MedicationRequest",
                medicationCodeableConcept=concept(
                    "310965", "http://www.nlm.nih.gov/research/umls/rxnorm"
                ),
                authoredOn="2024-03-05",
            ),
            [("RXNORM//310965", 5)],
        ),
        (
            resource(
                "MedicationRequest",
                contained=[{"resourceType": "Medication", "id": "m", "code": concept("7", "x/y")}],
                medicationReference={"reference": "#m"},
                authoredOn="2024-03-05",
            ),
            [("Y//7", 5)],
        ),
        (
            {
                "resourceType": "Immunization",
                "id": "i",
                "patient": {"reference": "Patient/p1"},
                "vaccineCode": concept("140", "http://hl7.org/fhir/sid/cvx"),
                "occurrenceDateTime": "2024-03-06",
            },
            [("CVX//140", 6)],
        ),
        (
            resource(
                "Procedure",
                code=concept("73761001", SNOMED),
                performedPeriod={"start": "2024-03-07", "end": "2024-03-08"},
            ),
            [("SNOMED//73761001", 7)],
        ),
        (
            resource("DiagnosticReport", code=concept("57698-3"), issued="2024-03-08T00:00:00Z"),
            [("LOINC//57698-3", 8)],
        ),
        (
            resource("ImagingStudy", modality=[{"code": "CT"}], started="2024-03-09"),
            [("IMAGINGSTUDY//CT", 9)],
        ),
    ],
)
def test_each_resource_tells_its_events(tmp_path, given, events):
    found = read(tmp_path, given)
    assert [(e["code"], e["time"].day) for e in found["events"]] == events
    assert not found["rejected"]


def test_a_preferred_system_gives_the_code_else_the_first_coding(tmp_path):
    both = {
        "coding": [
            {"system": "http://lab.example/codes", "code": "KREA"},
            {"system": LOINC, "code": "2160-0"},
        ]
    }
    given = observation(code=both, effectiveDateTime="2024-03-01")
    assert [e["code"] for e in read(tmp_path, given)["events"]] == ["LOINC//2160-0"]
    named = {"systems": {"http://lab.example/codes": "LAB"}, "prefer": ("LAB",)}
    assert [e["code"] for e in read(tmp_path, given, **named)["events"]] == ["LAB//KREA"]
    given["code"]["coding"].pop()
    assert read(tmp_path, given)["events"][0]["code"] == "CODES//KREA"


@pytest.mark.parametrize(
    "reference, patient",
    [
        ("Patient/a", "Patient/a"),
        ("https://fhir.example/r4/Patient/a", "Patient/a"),
        ("Patient/a/_history/2", "Patient/a"),
        ("urn:uuid:0b1c", "Patient/0b1c"),
        ("Patient?identifier=urn:mrn|M7", "Patient?identifier=urn:mrn|M7"),
        ("Patient?identifier=urn:mrn|unknown", None),
        ("Group/a", None),
        ("#a", None),
        ("", None),
    ],
)
def test_references_of_every_form_find_their_patient(tmp_path, reference, patient):
    given = observation(effectiveDateTime="2024-03-01", subject={"reference": reference})
    found = read(tmp_path, given)
    assert [e["patient"] for e in found["events"]] == ([patient] if patient else [])
    assert [r["reason"] for r in found["rejected"]] == ([] if patient else ["no_patient"])


def test_a_logical_reference_is_a_patient_linked_to_that_identifier(tmp_path):
    subject = {"identifier": {"system": "urn:mrn", "value": "M7"}}
    given = observation(effectiveDateTime="2024-03-01", subject=subject)
    patient = "Patient?identifier=urn:mrn|M7"
    assert read(tmp_path, given)["events"][0]["patient"] == patient
    assert others(tmp_path, given) == {(patient, None, patient), (patient, "urn:mrn", "M7")}
    renamed = others(tmp_path, given, identifiers={"urn:mrn": "mrn"})
    assert ("Patient?identifier=mrn|M7", "mrn", "M7") in renamed


def test_a_reference_to_another_server_is_another_patient(tmp_path):
    own, other = "https://fhir.example/r4", "https://elsewhere.example"
    rows = [
        observation(effectiveDateTime="2024-03-01", subject={"reference": reference})
        for reference in ("Patient/1", f"{own}/Patient/1", f"{other}/Patient/1/_history/3")
    ]
    found = read(tmp_path, *rows, server=f"{own}/")
    foreign = f"{other}/Patient/1"
    assert [e["patient"] for e in found["events"]] == ["Patient/1", "Patient/1", foreign]
    assert (foreign, other, "Patient/1") in others(tmp_path, *rows, server=own)
    untold = read(tmp_path, *rows)
    assert {e["patient"] for e in untold["events"]} == {"Patient/1"}
    counted = {r["code"]: r["count"] for r in untold["ledger"] if r["rule"] == "reference_server"}
    assert counted == {own: 1, other: 1}


def verified(*codes, text=None):
    told = {"coding": [{"code": code} for code in codes], "text": text}
    return resource("Condition", code=concept(), recordedDate="2024-03-01", verificationStatus=told)


def ordered(**fields):
    fields = {"status": "active", "authoredOn": "2024-03-01", **fields}
    return resource("MedicationRequest", medicationCodeableConcept=concept(), **fields)


@pytest.mark.parametrize(
    "given, reason",
    [
        (verified("confirmed"), None),
        (verified("unconfirmed"), "unconfirmed"),
        (verified("provisional"), "provisional"),
        (verified("differential"), "differential"),
        (verified("410605003"), None),
        (verified(text="Refuted by biopsy"), "refuted"),
        (verified(text="entered in error"), "entered_in_error"),
        (verified(text="Confirmed"), None),
        (verified(text="confirmed by biopsy"), None),
        (verified(text=" "), None),
        (verified(text="not confirmed"), "unconfirmed"),
        (verified(text="Not present"), "refuted"),
        (verified(text="Excluded"), "refuted"),
        (verified(text="possible"), "provisional"),
        (verified(text="Possibly confirmed"), "provisional"),
        (verified(text="probable"), "provisional"),
        (verified(text="Verdacht auf"), "unknown_status"),
        (verified("410515003"), None),
        (verified("410516002"), "refuted"),
        (verified("410594000"), "refuted"),
        (verified("410593005"), "refuted"),
        (verified("410592001", text="confirmed"), "provisional"),
        (verified("own-7", text="confirmed"), None),
        (verified("own-7"), "unknown_status"),
        (ordered(), None),
        (ordered(intent="order"), None),
        (ordered(intent="proposal"), "proposal"),
        (ordered(intent="plan"), "plan"),
        (ordered(status="Müller"), "unknown_status"),
        (resource("Procedure", status="preparation", code=concept()), "preparation"),
        (
            resource(
                "MedicationDispense",
                status="declined",
                medicationCodeableConcept=concept(),
                whenPrepared="2024-03-01",
            ),
            "declined",
        ),
        (
            resource(
                "MedicationStatement",
                status="intended",
                medicationCodeableConcept=concept(),
                dateAsserted="2024-03-01",
            ),
            "intended",
        ),
        (observation(effectiveDateTime="2024-03-01", status="preliminary"), None),
        (observation(effectiveDateTime="2024-03-01", status="registered"), "registered"),
        (observation(effectiveDateTime="2024-03-01", status="unknown"), "unknown_status"),
    ],
)
def test_what_is_planned_doubted_or_withdrawn_is_no_fact(tmp_path, given, reason):
    found = read(tmp_path, given)
    assert [row["reason"] for row in found["rejected"]] == ([reason] if reason else [])
    assert len(found["events"]) == (0 if reason else 1)


def test_a_study_says_which_statuses_tell_a_fact(tmp_path):
    told = {"statuses": {"Condition": ("confirmed", "provisional")}}
    assert len(read(tmp_path, verified("provisional"), **told)["events"]) == 1
    assert len(read(tmp_path, verified("differential"), **told)["rejected"]) == 1
    for statuses, near in (
        ({"Condition": ("confirmd",)}, "did you mean 'confirmed'"),
        ({"Conditions": ("confirmed",)}, "did you mean 'Condition'"),
    ):
        with pytest.raises(ValueError, match=near):
            fhir.Options(path="x", statuses=statuses)


@pytest.mark.parametrize(
    "given, reason",
    [
        (observation(), "no_time"),
        (observation(effectiveDateTime="2024", subject=None), "no_patient"),
        (observation(effectiveDateTime="2024", status="entered-in-error"), "entered_in_error"),
        (observation(effectiveDateTime="2024", code={"text": "free text"}), "no_code"),
        (observation(effectiveDateTime=["2024"]), "malformed_resource"),
        (resource("Procedure", status="not-done", code=concept()), "not_done"),
        (
            resource(
                "Condition", verificationStatus=concept("refuted"), code=concept(), recordedDate="2"
            ),
            "refuted",
        ),
        ({"hello": "world"}, "not_a_resource"),
        (b'{"resourceType": "Observation", "id": ', "malformed_json"),
        (b'{"resourceType": "Observation", "id": "\xff"}', "malformed_json"),
        (b'{"a":' * 3000, "malformed_json"),
        (b"\x00\x00", "malformed_json"),
    ],
)
def test_what_is_refused_keeps_its_reason_and_place_and_fails_nothing_else(tmp_path, given, reason):
    good = observation(effectiveDateTime="2024-03-01")
    found = read(tmp_path, good, b"", given, good)
    assert len(found["events"]) == 2
    (refusal,) = found["rejected"]
    assert refusal["reason"] == reason
    assert (refusal["file"], refusal["stage"], refusal["source"]) == (
        "all.ndjson",
        "acquire",
        "ehr",
    )
    assert refusal["position"] == len(json.dumps(good)) + 2


def test_types_that_are_not_read_are_counted(tmp_path):
    claim = {"resourceType": "Claim", "id": "c", "patient": {"reference": "Patient/p1"}}
    found = read(tmp_path, observation(issued="2024-03-01T00:00:00Z"), claim, claim)
    row = {"source": "ehr", "code": "Claim", "rule": "not_read", "action": "left_out", "count": 2}
    assert found["ledger"] == [row]
    assert not found["rejected"]


def bundle(kind="transaction"):
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [
            {
                "fullUrl": "urn:uuid:aaaa",
                "resource": observation(
                    subject={"reference": "urn:uuid:bbbb"}, effectiveDateTime="2024-03-01"
                ),
            },
            {
                "fullUrl": "urn:uuid:bbbb",
                "resource": {"resourceType": "Patient", "id": "p9", "birthDate": "1950-01-01"},
            },
            {
                "fullUrl": "urn:uuid:cccc",
                "resource": {"resourceType": "Medication", "code": concept("1", "a/b")},
            },
            {
                "resource": {
                    "resourceType": "MedicationRequest",
                    "subject": {"reference": "urn:uuid:bbbb"},
                    "medicationReference": {"reference": "urn:uuid:cccc"},
                    "authoredOn": "2024-03-02",
                }
            },
            {"resource": {"resourceType": "Observation", "id": "bad", "status": 7}},
            {"request": {"method": "DELETE"}},
        ],
    }


@pytest.mark.parametrize("form", ["pretty", "line", "gz", "zip", "array", "lines", "bom"])
def test_a_bundle_resolves_its_references_however_it_is_stored(tmp_path, form):
    text = json.dumps(bundle())
    if form == "pretty":
        (tmp_path / "b.json").write_text(json.dumps(bundle(), indent=2))
    elif form == "gz":
        (tmp_path / "b.json.gz").write_bytes(gzip.compress(text.encode()))
    elif form == "zip":
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr("in/b.json.gz", gzip.compress(text.encode()))
    elif form == "array":
        (tmp_path / "b.json").write_text(json.dumps([bundle()], indent=1))
    elif form == "lines":
        (tmp_path / "b.json").write_text(text + "\n" + json.dumps({"resourceType": "Claim"}))
    else:
        mark = "\ufeff" if form == "bom" else ""
        (tmp_path / "b.json").write_text(mark + text, encoding="utf-8")
    found = tables(list(files.listing(str(tmp_path))), str(tmp_path))
    assert {(e["patient"], e["code"]) for e in found["events"]} == {
        ("Patient/p9", "LOINC//2160-0"),
        ("Patient/p9", "MEDS_BIRTH"),
        ("Patient/p9", "B//1"),
    }
    (refusal,) = found["rejected"]
    assert refusal["reason"] == "malformed_resource"
    assert refusal["record_id"] == "Observation/bad"


def test_broken_files_are_refused_and_fail_nothing_else(tmp_path):
    whole = gzip.compress(json.dumps(observation(effectiveDateTime="2024")).encode())
    (tmp_path / "cut.json.gz").write_bytes(whole[:-12])
    (tmp_path / "empty.ndjson").write_bytes(b"\n")
    (tmp_path / "half.json").write_text(json.dumps(bundle(), indent=2)[:-20])
    (tmp_path / "no.json.gz").write_bytes(b"not gzip")
    (tmp_path / "sound.json.gz").write_bytes(whole)
    found = tables(list(files.listing(str(tmp_path))), str(tmp_path))
    assert len(found["events"]) == 1
    assert {(r["file"], r["reason"]) for r in found["rejected"]} == {
        ("cut.json.gz", "unreadable_file"),
        ("empty.ndjson", "empty_file"),
        ("half.json", "malformed_json"),
        ("no.json.gz", "unreadable_file"),
    }


@pytest.mark.parametrize("size", [1, 7, 100, 333, 10_000])
def test_however_a_file_is_cut_the_answer_is_the_same(tmp_path, size):
    rows = [
        observation(id=f"o{n}", effectiveDateTime="2024-03-01", valueInteger=n) for n in range(9)
    ]
    lines = [json.dumps(row).encode() for row in rows]
    lines[4] = b'{"resourceType": "Observ'
    file = tmp_path / "all.ndjson"
    file.write_bytes(b"\n".join(lines))
    (piece,) = files.listing(str(file))
    cut = [
        files.Piece(piece.name, piece.path, size, None, start, min(start + size, piece.size))
        for start in range(0, piece.size, size)
    ]
    whole, parts = tables([piece], str(file)), tables(cut, str(file))
    assert whole == parts
    assert len(whole["events"]) == 8
    assert whole["rejected"][0]["position"] == sum(len(line) + 1 for line in lines[:4])
