"""FHIR records as facts: when they were known, under which codes, which version, what is left."""

from __future__ import annotations

import datetime as dt
import gzip
import json

import pytest
from tests.unit.test_fhir_source import (
    LOINC,
    SNOMED,
    concept,
    observation,
    read,
    resource,
    tables,
    told,
)

from clinloom import files
from clinloom.clean import clean
from clinloom.files import Given
from clinloom.sources import fhir
from clinloom.tables import ACQUIRED, REFUSED

UTC = dt.UTC
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
BOTH = {
    "coding": [
        {"system": SNOMED, "code": "44054006"},
        {"system": ICD, "code": "E11.9"},
        {"system": "http://hospital.example/own", "code": "DM2"},
    ]
}
END = dt.timedelta(days=1, microseconds=-1)


def times(found):
    """Code, when it was known, and from when on it may have happened where that is earlier."""
    return [(e["code"], e["time"], happened(e)) for e in found["events"]]


def happened(event):
    if event["earlier"] is None:
        return None
    return event["time"] - dt.timedelta(microseconds=event["earlier"])


# ---- when


def test_a_diagnosis_of_a_day_is_known_at_its_end_in_its_own_zone(tmp_path):
    given = resource("Condition", code=concept("E11.9", ICD), recordedDate="2024-03-05")
    begin = dt.datetime(2024, 3, 5, 5, tzinfo=UTC)
    found = read(tmp_path, given, zone="America/New_York")
    assert times(found) == [("ICD10CM//E11.9", begin + END, begin)]


def test_a_condition_is_known_when_it_is_recorded_and_happened_at_its_onset(tmp_path):
    given = resource(
        "Condition",
        code=concept("E11.9", ICD),
        onsetDateTime="2019",
        recordedDate="2024-03-05T10:00:00Z",
    )
    found = read(tmp_path, given)
    known, onset = dt.datetime(2024, 3, 5, 10, tzinfo=UTC), dt.datetime(2019, 1, 1, tzinfo=UTC)
    assert times(found) == [("ICD10CM//E11.9", known, onset)]
    assert told(found) == []


def test_a_condition_without_a_recording_is_counted_and_may_have_a_delay(tmp_path):
    given = resource("Condition", code=concept("E11.9", ICD), onsetDateTime="2019")
    begin, end = dt.datetime(2019, 1, 1, tzinfo=UTC), dt.datetime(2019, 12, 31, tzinfo=UTC) + END
    found = read(tmp_path, given, zone="UTC")
    assert times(found) == [("ICD10CM//E11.9", end, begin)]
    assert told(found) == [("ICD10CM//E11.9", "no_recording", "timed_by_onset", 1)]
    found = read(tmp_path, given, delays={"ICD10CM//*": "30d"}, zone="UTC")
    assert times(found) == [("ICD10CM//E11.9", end + dt.timedelta(days=30), begin)]
    assert told(found) == [("ICD10CM//E11.9", "no_recording", "timed_by_delay", 1)]


def test_a_condition_is_not_known_before_it_began(tmp_path):
    given = resource(
        "Condition", code=concept(), recordedDate="2024-03-05T10:00:00Z", onsetDateTime="2024-03-06"
    )
    begin = dt.datetime(2024, 3, 6, tzinfo=UTC)
    found = read(tmp_path, given)
    assert times(found) == [("LOINC//2160-0", begin + END, begin)]
    assert told(found) == [("LOINC//2160-0", "recorded_early", "timed_by_onset", 1)]


def test_a_death_of_a_day_may_have_happened_all_day_and_a_birth_is_that_day(tmp_path):
    person = {"resourceType": "Patient", "id": "p1", "birthDate": "1950-03-05"}
    person["deceasedDateTime"] = "2024-03-05"
    found = read(tmp_path, person, zone="Asia/Tokyo")
    begin = dt.datetime(2024, 3, 4, 15, tzinfo=UTC)
    assert times(found) == [
        ("MEDS_BIRTH", dt.datetime(1950, 3, 5, tzinfo=UTC), None),
        ("MEDS_DEATH", begin + END, begin),
    ]


def test_a_result_of_a_day_that_is_released_within_it_is_known_then(tmp_path):
    issued = dt.datetime(2024, 3, 5, 9, tzinfo=UTC)
    given = observation(effectiveDateTime="2024-03-05", issued="2024-03-05T09:00:00Z")
    found = read(tmp_path, given)
    assert times(found) == [("LOINC//2160-0", issued, dt.datetime(2024, 3, 5, tzinfo=UTC))]
    assert told(found) == []


# ---- what


def test_a_concept_in_several_systems_is_an_event_in_each_that_is_known(tmp_path):
    found = read(tmp_path, resource("Condition", code=BOTH, recordedDate="2024-03-05"), zone="UTC")
    rows = [(e["code"], e["record_id"]) for e in found["events"]]
    assert rows == [("SNOMED//44054006", "Condition/r1"), ("ICD10CM//E11.9", "Condition/r1")]
    assert told(found) == [("OWN//DM2", "other_coding", "left_out", 1)]


def test_a_study_may_keep_one_coding_by_the_order_of_its_systems(tmp_path):
    given = resource("Condition", code=BOTH, recordedDate="2024-03-05")
    found = read(tmp_path, given, prefer=("ICD10CM", "SNOMED"), codings="first", zone="UTC")
    assert [e["code"] for e in found["events"]] == ["ICD10CM//E11.9"]
    assert told(found) == [
        ("SNOMED//44054006", "other_coding", "left_out", 1),
        ("OWN//DM2", "other_coding", "left_out", 1),
    ]


@pytest.mark.parametrize(
    "prefer, answer",
    [(("SNOMED",), "SNOMED//260385009"), (("LOINC", "SNOMED"), "LOINC//LA6577-6")],
)
def test_an_answer_in_several_systems_is_one(tmp_path, prefer, answer):
    codings = [{"system": LOINC, "code": "LA6577-6"}, {"system": SNOMED, "code": "260385009"}]
    given = observation(effectiveDateTime="2024", valueCodeableConcept={"coding": codings})
    found = read(tmp_path, given, prefer=prefer)["events"]
    assert [event["text_value"] for event in found] == [answer]


def test_fields_that_are_not_read_are_counted(tmp_path):
    stay = resource(
        "Encounter",
        **{"class": {"code": "IMP"}},
        period={"start": "2024-03-05"},
        type=[concept("1", SNOMED)],
        reasonCode=[concept("2", SNOMED)],
    )
    over = resource("Condition", code=concept(), recordedDate="2024", abatementDateTime="2024-03")
    found = read(tmp_path, stay, stay, over, zone="UTC")
    assert told(found) == [
        ("Encounter.type", "not_read", "left_out", 2),
        ("Encounter.reasonCode", "not_read", "left_out", 2),
        ("Condition.abatementDateTime", "not_read", "left_out", 1),
    ]
    assert len(found["events"]) == 3


# ---- which version


def kept(found):
    """Numbers of the events that are left when the patient's events are cleaned."""
    rows = [{**row, "subject_id": 1} for row in found["events"]]
    rows.sort(key=lambda row: (row["time"], row["code"]))
    refused = [{**row, "subject_id": 1} for row in found["rejected"]]
    made = clean(ACQUIRED.rows(rows), {}, REFUSED.rows(refused))
    return made["events"].column("numeric_value").to_pylist()


def version(number, status="final", day=1, **meta):
    when = {"effectiveDateTime": "2024-03-01T08:00:00Z", "issued": f"2024-03-0{day}T09:00:00Z"}
    said = {"valueQuantity": {"value": number, "unit": "mg/dL"}}
    return observation(status=status, **when, **said, **({"meta": meta} if meta else {}))


@pytest.mark.parametrize(
    "versions, numbers",
    [
        ([version(1.0, versionId="1"), version(2.0, "corrected", 2, versionId="2")], [2.0]),
        ([version(1.0, versionId="9"), version(2.0, day=2, versionId="10")], [2.0]),
        (
            [
                version(1.0, lastUpdated="2024-03-01T10:00:00Z", versionId="a"),
                version(2.0, day=2, lastUpdated="2024-03-01T10:00:00.001+00:00", versionId="b"),
            ],
            [2.0],
        ),
        ([version(1.0), version(2.0, "amended", 2)], [2.0]),
        ([version(1.0, "preliminary"), version(2.0, day=2)], [2.0]),
        ([version(1.0), version(1.0, "entered-in-error", 2)], []),
        ([version(1.0, versionId="1"), version(1.0, "entered-in-error", 2, versionId="2")], []),
        ([version(1.0, "entered-in-error", versionId="1"), version(2.0, versionId="2")], [2.0]),
        ([version(1.0, "registered"), version(2.0)], [2.0]),
        ([version(1.0), version(2.0, day=2)], [1.0, 2.0]),  # nothing tells which is the last
    ],
)
def test_the_last_version_of_a_record_counts_in_whatever_order_they_come(
    tmp_path, versions, numbers
):
    for order in (versions, versions[::-1]):
        assert kept(read(tmp_path, *order)) == numbers


def test_a_refuted_diagnosis_takes_its_earlier_version_back(tmp_path):
    known = {"code": concept("E11.9", ICD), "recordedDate": "2024-03-05"}
    first = resource("Condition", **known, meta={"versionId": "1"})
    then = resource(
        "Condition", **known, meta={"versionId": "2"}, verificationStatus=concept("refuted")
    )
    assert kept(read(tmp_path, first)) == [None]
    assert kept(read(tmp_path, first, then)) == []


# ---- medicines in files of their own


def prescription(reference, **fields):
    fields = {"status": "active", "authoredOn": "2024-03-05T08:00:00Z", **fields}
    return resource("MedicationRequest", medicationReference={"reference": reference}, **fields)


def medicine(key, code):
    rxnorm = "http://www.nlm.nih.gov/research/umls/rxnorm"
    return {"resourceType": "Medication", "id": key, "code": concept(code, rxnorm)}


def lines(*resources):
    return "".join(json.dumps(r) + "\n" for r in resources).encode()


@pytest.mark.parametrize(
    "reference",
    ["Medication/m1", "https://fhir.example/r4/Medication/m1", "Medication/m1/_history/2"],
)
@pytest.mark.parametrize("name", ["Medication.ndjson", "Medication.000.ndjson.gz"])
def test_a_prescription_finds_its_medicine_in_the_exports_own_file(tmp_path, reference, name):
    data = lines(medicine("m1", "4603"), medicine("m2", "6918"))
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "MedicationRequest.ndjson").write_bytes(lines(prescription(reference)))
    pieces = list(files.listing(str(tmp_path)))
    for some in (pieces, [p for p in pieces if "Request" in p.name]):  # in a group, and alone
        found = tables(some, str(tmp_path))
        assert [e["code"] for e in found["events"]] == ["RXNORM//4603"]
        assert not found["rejected"]


def test_a_replaced_file_of_medicines_is_read_again(tmp_path):
    (tmp_path / "MedicationRequest.ndjson").write_bytes(lines(prescription("Medication/m1")))
    pieces = list(files.listing(str(tmp_path)))
    for code in ("4603", "69180"):
        (tmp_path / "Medication.ndjson").write_bytes(lines(medicine("m1", code)))
        found = tables(pieces, str(tmp_path))
        assert [e["code"] for e in found["events"]] == [f"RXNORM//{code}"]


def test_a_medicine_may_stand_after_the_prescription_in_a_mixed_file(tmp_path):
    found = read(tmp_path, prescription("Medication/m1"), medicine("m1", "4603"))
    assert [e["code"] for e in found["events"]] == ["RXNORM//4603"]


def test_a_medicine_that_is_nowhere_is_refused_with_its_place(tmp_path):
    found = read(tmp_path, observation(effectiveDateTime="2024"), prescription("Medication/m1"))
    (row,) = found["rejected"]
    assert (row["reason"], row["record_id"]) == ("no_code", "MedicationRequest/r1")
    assert row["position"] > 0 and row["file"] == "all.ndjson"


def test_bytes_at_hand_look_for_no_file(tmp_path):
    """A request may come where the study's folder is not."""
    given = [Given("request.ndjson", lines(prescription("Medication/m1")))]
    found = list(fhir.read(given, fhir.Options(path=str(tmp_path / "gone")), "ehr"))
    reasons = [reason for p in found for reason in p["rejected"].column("reason").to_pylist()]
    assert reasons == ["no_code"]
