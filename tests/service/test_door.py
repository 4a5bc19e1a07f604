"""The door: FHIR and events of a request are scored as in batch, or refused with a reason."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from tests.service import made

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import REASONS, Door, Refusal
from clinloom.identity.few import _least


@pytest.fixture(scope="module")
def door(tmp_path_factory) -> Door:
    return Door(Bundle.load(made.publish(tmp_path_factory.mktemp("door") / "bundle")))


def changed(number=0, **changes):
    """A patient's Bundle with some resources (by kind) changed by functions."""
    given = copy.deepcopy(made.patient(number))
    for entry in given["entry"]:
        change = changes.get(entry["resource"]["resourceType"])
        if change:
            change(entry["resource"])
    return given


def refusal(door, given, **more) -> Refusal:
    with pytest.raises(Refusal) as caught:
        data = given if isinstance(given, bytes) else json.dumps(given).encode()
        door.score(door.fhir(data, **more))
    assert caught.value.reason in REASONS
    return caught.value


def risks(answer):
    return answer.predictions.column("predicted_boolean_probability").to_pylist()


def test_a_bundle_bytes_or_resources_give_one_answer(door):
    given = made.patient(3)
    resources = [entry["resource"] for entry in given["entry"]]
    forms = [json.dumps(given).encode(), [given], resources]
    forms += [b"\n".join(json.dumps(r).encode() for r in resources)]
    answers = [door.score(door.fhir(form)) for form in forms]
    assert len(risks(answers[0])) == 1
    assert all(risks(answer) == risks(answers[0]) for answer in answers)
    assert answers[0].refused == {"entered_in_error": 8}
    assert set(answers[0].patients.values()) == {"Patient/p3"}
    assert answers[0].values.shape == (1, len(door.features))


def test_events_of_the_same_facts_give_the_same_risk(door):
    facts = door.fhir(made.body(4))
    rows = facts.events.to_pylist()
    assert risks(door.score(door.events(rows))) == risks(door.score(facts))
    assert risks(door.score(door.events(rows))) == (
        door.bundle.predict(rows).column("predicted_boolean_probability").to_pylist()
    )


def test_a_moment_that_is_given_takes_the_studys_place(door):
    facts = door.fhir(made.body(5))
    moment = made.BEGIN.replace(year=2025)
    answer = door.score(facts, moment)
    assert answer.predictions.column("prediction_time").to_pylist() == [moment]
    with pytest.raises(Refusal, match="an instant with a zone"):
        door.score(facts, moment.replace(tzinfo=None))


def test_who_is_not_due_has_no_prediction_and_it_is_said_why(door):
    child = changed(Patient=lambda r: r.update(birthDate="2020-01-01"))
    answer = door.score(door.fhir([child]))
    assert risks(answer) == [] and answer.flow["age at least 18"] == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "no_patient"),
        (b"{", "malformed_json"),
        (b"\xff\xfe{}", "malformed_json"),
        (b"\x1f\x8b\x08", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b"{}", "not_a_resource"),
        ({"resourceType": "Bundle"}, "no_patient"),
        ({"resourceType": "Bundle", "entry": 3}, "malformed_resource"),
        ({"resourceType": "Practitioner", "id": "x"}, "no_patient"),
        ({"resourceType": "Patient"}, "no_patient"),
        (changed(Observation=lambda r: r.pop("subject")), "no_patient"),
        (changed(Observation=lambda r: r.update(subject={"reference": "Patient/q"})), "several"),
        (changed(Observation=lambda r: r.update(code=7)), "malformed_resource"),
        (
            changed(Observation=lambda r: r["valueQuantity"].update(unit="furlong")),
            "unreadable_fact",
        ),
        (changed(Observation=lambda r: r.update(issued="03/05/21 noon")), "unreadable_fact"),
        (changed(Patient=lambda r: r.update(deceasedBoolean=True)), "unreadable_fact"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_scored_safely_is_refused(door, given, reason):
    found = refusal(door, given)
    assert found.reason.startswith(reason)
    assert "p0" not in str(found) and "furlong" not in str(found)


def test_a_fact_that_cannot_be_read_names_what_is_at_fault(door):
    died = refusal(door, changed(Patient=lambda r: r.update(deceasedBoolean=True)))
    assert died.where == "MEDS_DEATH: no_time in deceased[x]"
    unit = changed(Observation=lambda r: r["valueQuantity"].update(unit="furlong"))
    assert refusal(door, unit).where.endswith(": unknown_unit in unit")


def test_a_patient_of_whom_nothing_is_known_is_refused(door):
    alone = {"resourceType": "Patient", "id": "p"}
    assert refusal(door, alone).reason in ("all_refused", "no_patient", "nothing_known")
    facts = door.fhir([{**alone, "birthDate": "1950-01-01"}])
    assert len(risks(door.score(facts, made.BEGIN))) == 1  # an age is something
    assert risks(door.score(facts)) == []  # not in hospital
    with pytest.raises(Refusal, match="nothing that the model reads"):
        door.score(facts, made.BEGIN.replace(year=1940))


def test_codes_that_the_model_does_not_know_are_not_known_facts(door):
    given = changed(Observation=lambda r: r.update(code=made._coded("urn:x", "y")))
    given["entry"] = [e for e in given["entry"] if e["resource"]["resourceType"] == "Observation"]
    facts = door.fhir([given])
    with pytest.raises(Refusal, match="nothing that the model reads"):
        door.score(facts, made.BEGIN.replace(year=2026))


def test_a_unit_that_the_model_does_not_lean_on_is_counted(door):
    other = copy.deepcopy(made.patient(0)["entry"][-2]["resource"])
    assert other["resourceType"] == "Observation"
    other.update(id="x", code=made._coded("http://loinc.org", "2951-2"), status="final")
    other["valueQuantity"] = {"value": 140, "unit": "furlong"}
    answer = door.score(door.fhir([made.patient(0), other]))
    assert answer.refused["unknown_unit"] == 1
    assert risks(answer) == risks(door.score(door.fhir(made.body(0))))


def test_the_patient_who_is_meant_is_the_only_one_told_of(door):
    data = made.body(1)
    assert set(door.fhir(data, subject="Patient/p1").patients.values()) == {"Patient/p1"}
    assert refusal(door, data, subject="Patient/p2").reason == "other_patient"
    both = json.dumps([made.patient(1), made.patient(2)]).encode()
    assert refusal(door, both).reason == "several_patients"
    assert refusal(door, both, subject="Patient/p1").reason == "other_patient"


def test_several_patients_are_scored_where_that_is_meant_and_one_is_refused_alone(door):
    spoilt = changed(2, Observation=lambda r: r["valueQuantity"].update(unit="furlong"))
    facts = door.fhir([made.patient(1), spoilt, made.patient(3)], several=True)
    answer = door.score(facts)
    [lost] = answer.unscored
    assert answer.patients[lost] == "Patient/p2"
    alone = [risks(door.score(door.fhir(made.body(n))))[0] for n in (1, 3)]
    assert sorted(risks(answer)) == sorted(alone)


def test_records_that_are_linked_are_one_patient(door):
    given = made.patient(6)
    mine = {"identifier": {"system": "urn:mrn", "value": "M00006"}}
    given["entry"][-1]["resource"]["subject"] = mine
    whole = door.score(door.fhir([given]))
    assert list(whole.patients.values())[0].startswith("Patient")
    assert len(set(door.fhir([given]).events.column("subject_id").to_pylist())) == 1
    assert risks(whole) == risks(door.score(door.fhir(made.body(6))))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"subject_id": 1}],
        [{"subject_id": None, "code": "A"}],
        [{"subject_id": 1, "code": None}],
        [{"subject_id": "x", "code": "A"}],
        [{"subject_id": 1, "code": "A", "time": "noon"}],
        [{"subject_id": 1, "code": "A", "numeric_value": "much"}],
        [{"subject_id": 2**70, "code": "A"}],
        [3],
        pa.table({"code": ["A"]}),
    ],
    ids=str,
)
def test_events_that_are_none_are_refused(door, rows):
    with pytest.raises(Refusal) as caught:
        door.events(rows)
    assert caught.value.reason in ("malformed_events", "no_patient")


def test_least_numbers_of_joined_sets():
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    draw = random.Random(3)
    for _ in range(50):
        count = draw.randrange(1, 40)
        pairs = [(draw.randrange(count), draw.randrange(count)) for _ in range(draw.randrange(60))]
        left, right = ([p[side] for p in pairs] for side in (0, 1))
        joined = coo_array((np.ones(len(left), bool), (left, right)), (count, count))
        _, label = connected_components(joined, directed=False)
        _, first = np.unique(label, return_index=True)
        assert _least(count, left, right).tolist() == first[label].tolist()
