"""What a FHIR resource says that no study can read is counted, however it is read."""

from __future__ import annotations

import json

import pytest
from tests.unit.test_fhir_plain import lines, same, whole
from tests.unit.test_fhir_records import medicine, prescription
from tests.unit.test_fhir_source import concept, observation, read, resource, told

MEMBERS = [{"reference": "Observation/o2"}]
HIGH = [concept("H", "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation")]
AT = "2024-03-05T08:00:00Z"


def counts(found):
    return {row["code"]: row["count"] for row in found["ledger"] if row["rule"] == "not_read"}


def test_a_panel_of_members_alone_is_counted(monkeypatch):
    given = [observation(id=f"p{n}", issued=AT, hasMember=MEMBERS) for n in range(70)]
    given.append(observation(status="entered-in-error", issued=AT, hasMember=MEMBERS))
    given.append(observation(status="amended", issued=AT, hasMember=MEMBERS))  # read in full
    given.append(observation(id="o2", issued=AT, hasMember=MEMBERS, valueInteger=3))
    found = same(lines(given), monkeypatch)
    assert counts(found) == {"Observation.hasMember": 71}
    assert len(found["events"]) == 1 and len(found["rejected"]) == 1


def test_interpretations_are_counted_of_usual_lines_and_others(monkeypatch):
    given = [observation(id=f"o{n}", issued=AT, interpretation=HIGH) for n in range(80)]
    given += [observation(id=f"q{n}", issued=AT) for n in range(80)]
    given += [observation(id="a", issued=AT, status="amended", interpretation=HIGH)]
    given += [observation(id="c", interpretation=HIGH, component=[]), {"resourceType": "Claim"}]
    found = same(lines(given[::-1]), monkeypatch)
    assert counts(found) == {"Observation.interpretation": 82, "Claim": 1}
    bundle = {"resourceType": "Bundle", "entry": [{"resource": each} for each in given]}
    assert counts(whole(json.dumps(bundle).encode())) == counts(found)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (
            resource(
                "Encounter",
                period={"start": AT},
                hospitalization={"dischargeDisposition": concept("hosp")},
            ),
            "Encounter.hospitalization",
        ),
        (
            resource("DiagnosticReport", code=concept(), issued=AT, conclusionCode=[concept()]),
            "DiagnosticReport.conclusionCode",
        ),
        *(
            (
                resource(
                    kind,
                    status="completed",
                    intent="order",
                    medicationCodeableConcept=concept(),
                    **{name: [{"text": "daily"}]},
                    authoredOn=AT,
                    whenHandedOver=AT,
                    dateAsserted=AT,
                ),
                f"{kind}.{name}",
            )
            for kind, name in (
                ("MedicationRequest", "dosageInstruction"),
                ("MedicationDispense", "dosageInstruction"),
                ("MedicationStatement", "dosage"),
            )
        ),
    ],
)
def test_what_a_resource_says_besides_is_counted(tmp_path, given, field):
    found = read(tmp_path, given, given)
    assert len(found["events"]) == 2
    assert told(found) == [(field, "not_read", "left_out", 2)]


def test_medicines_are_counted_whether_or_not_a_prescription_points_to_them(tmp_path):
    given = [prescription("Medication/m1"), medicine("m1", "4603"), medicine("m2", "6918")]
    found = read(tmp_path, *given)
    assert told(found) == [("Medication", "by_reference", "no_event", 2)]
    assert [event["code"] for event in found["events"]] == ["RXNORM//4603"]
