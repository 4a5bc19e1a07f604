"""A scoring reaches a FHIR server whole and once, whatever happens on the way."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from tests.service import made
from tests.service.fhir_server import Hospital, serving

from clinloom import cli
from clinloom.deploy import sender
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.sender import send
from clinloom.errors import SourceError, UsageError

PATIENTS = 12
KINDS = ("RiskAssessment", "Observation", "Provenance")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(sender, "FIRST", 0.01)


@pytest.fixture(scope="module")
def bundle(published) -> Bundle:
    return Bundle.load(published)


@pytest.fixture(scope="module")
def lines(bundle) -> list[str]:
    """The lines that `score --as fhir` leaves of some patients."""
    told = made.assessed(bundle, PATIENTS)
    assert len(told) == PATIENTS
    return told


@pytest.fixture
def file(tmp_path, lines):
    place = tmp_path / "risk.ndjson"
    place.write_text("".join(lines))
    return place


@pytest.fixture
def hospital():
    found = Hospital()
    for number in range(PATIENTS):
        found.patient(number)
    return found


def counts(hospital):
    return Counter(kind for kind, _ in hospital.held if kind != "Patient")


def receipt(file):
    [place] = (file.parent / f"{file.name}.sent").glob("*/receipt.json")
    return json.loads(place.read_text())


def rejected(file):
    parts = sorted((file.parent / f"{file.name}.sent").glob("*/rejected/*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_a_prediction_is_an_assessment_an_observation_and_where_they_come_from(
    bundle, published, file, hospital, lines
):
    with serving(hospital) as to:
        told = send(str(published), predictions=str(file), to=to, at_once=5)
    assert (told["sent"], told["rejected"]) == (PATIENTS, 0)
    assert hospital.transactions == [16, 16, 7]
    assert counts(hospital) == {"Device": 1, **dict.fromkeys(KINDS, PATIENTS)}
    [device] = hospital.of("Device")
    assert device["identifier"] == [{"system": "urn:clinloom:bundle", "value": bundle.hash}]
    assert device["modelNumber"] == bundle.mark
    model = {"reference": f"Device/{device['id']}"}
    risks = {json.loads(line)["prediction"][0]["probabilityDecimal"] for line in lines}
    for kind, name in (("RiskAssessment", "performer"), ("Observation", "device")):
        assert all(one[name] == model for one in hospital.of(kind))
    assert {o["valueQuantity"]["value"] for o in hospital.of("Observation")} == risks
    subjects = {one["subject"]["reference"] for one in hospital.of("RiskAssessment")}
    assert subjects == {f"Patient/own{number}" for number in range(PATIENTS)}
    targets = [t["reference"] for one in hospital.of("Provenance") for t in one["target"]]
    made_ = [f"{kind}/{one['id']}" for kind in KINDS[:2] for one in hospital.of(kind)]
    assert sorted(targets) == sorted(made_)
    assert receipt(file)["done"] and receipt(file)["lines"] == PATIENTS
    [trail] = (file.parent / "risk.ndjson.audit").glob("*.jsonl")
    assert json.loads(trail.read_text())["rows"] == PATIENTS


def test_what_comes_again_changes_nothing(published, file, hospital, tmp_path):
    with serving(hospital) as to:
        send(str(published), predictions=str(file), to=to)
        before, asked = dict(hospital.versions), len(hospital.transactions)
        send(str(published), predictions=str(file), to=to)
        assert len(hospital.transactions) == asked  # the receipt knows
        other = tmp_path / "copy.ndjson"
        other.write_bytes(file.read_bytes())
        send(str(published), predictions=str(other), to=to, at_once=3)
    assert len(hospital.transactions) == asked + 4 and hospital.versions == before


def test_a_risk_that_changed_replaces_itself_and_says_so(published, file, hospital, lines):
    with serving(hospital) as to:
        send(str(published), predictions=str(file), to=to)
        first = json.loads(lines[0])
        first["prediction"][0]["probabilityDecimal"] = 0.123
        file.write_text("".join([json.dumps(first) + "\n", *lines[1:]]))
        send(str(published), predictions=str(file), to=to)
    expected = {"Device": 1, **dict.fromkeys(KINDS, PATIENTS), "Provenance": PATIENTS + 1}
    assert counts(hospital) == expected
    assert 0.123 in [o["valueQuantity"]["value"] for o in hospital.of("Observation")]


def test_faults_that_pass_are_waited_out_and_nothing_is_there_twice(published, file, hospital):
    hospital.faults = [503, 429, None, "lost", "late", 500, 409, None]
    notes = []
    with serving(hospital) as to:
        told = send(str(published), predictions=str(file), to=to, at_once=4, note=notes.append)
    assert told["sent"] == PATIENTS and not hospital.faults
    assert counts(hospital) == {"Device": 1, **dict.fromkeys(KINDS, PATIENTS)}
    assert sum("trying again" in note for note in notes) == 6


def test_who_is_refused_is_kept_with_the_reason_and_nobody_else(published, file, hospital):
    canary = "M00004"
    del hospital.held["Patient", "own7"]
    hospital.refuses = lambda one: one.get("subject") == {"reference": "Patient/own4"}
    notes = []
    with serving(hospital) as to:
        told = send(str(published), predictions=str(file), to=to, note=notes.append)
    assert (told["sent"], told["rejected"]) == (PATIENTS - 2, 2)
    found = rejected(file)
    assert [(row["position"], row["reason"]) for row in found] == [
        (5, "422 business-rule"),
        (8, "404 not-found"),
    ]
    assert all(row["stage"] == "send" and len(row["record_id"]) == 32 for row in found)
    assert counts(hospital)["RiskAssessment"] == PATIENTS - 2
    kept = [p.read_bytes() for p in file.parent.rglob("*") if p.is_file() and p != file]
    assert canary not in "\n".join(notes) and not [b for b in kept if canary.encode() in b]


def test_a_sending_that_was_cut_off_goes_on_where_it_was(published, file, hospital):
    hospital.faults = [None, None, "late", 503]
    asked = {"predictions": str(file), "at_once": 3, "patience": 0}
    with serving(hospital) as to:
        with pytest.raises(SourceError, match="could not take") as caught:
            send(str(published), to=to, **asked)
        assert "goes on from there" in caught.value.mend
        assert receipt(file)["lines"] == 6 and not receipt(file)["done"]
        [place] = (file.parent / f"{file.name}.sent").glob("*")
        (place / "rejected").mkdir()  # as a stop before the receipt leaves it
        (place / "rejected" / "part-000000000006.parquet").write_bytes(b"")
        hospital.faults = []
        told = send(str(published), to=to, **asked)
    assert told["sent"] == PATIENTS and len(hospital.transactions) == 5 and not rejected(file)
    assert counts(hospital) == {"Device": 1, **dict.fromkeys(KINDS, PATIENTS)}


@pytest.mark.parametrize("at_once", [5, 1])
def test_what_a_server_always_fails_at_is_rejected_and_the_rest_goes_on(
    published, file, hospital, at_once
):
    bad = [{"reference": f"Patient/own{number}"} for number in (4, 5)]
    hospital.fails = lambda one: one.get("subject") in bad
    asked = {"predictions": str(file), "at_once": at_once, "patience": 0.02}
    with serving(hospital) as to:
        told = send(str(published), to=to, **asked)
    assert (told["sent"], told["rejected"]) == (PATIENTS - 2, 2)
    found = [(row["position"], row["reason"]) for row in rejected(file)]
    assert found == [(5, "500 exception"), (6, "500 exception")]


def test_a_server_that_fails_at_everything_ends_the_sending(published, file, hospital):
    hospital.fails = lambda one: "subject" in one
    with serving(hospital) as to, pytest.raises(SourceError, match="could not take"):
        send(str(published), predictions=str(file), to=to, patience=0.02)
    assert not rejected(file)


def test_an_answer_of_no_fhir_server_refuses_nothing(published, file, hospital):
    hospital.faults = [404]
    with serving(hospital) as to:
        with pytest.raises(SourceError, match="as no FHIR server"):
            send(str(published), predictions=str(file), to=to)
        assert send(str(published), predictions=str(file), to=to)["sent"] == PATIENTS
    assert not rejected(file)


def test_lines_that_are_none_of_a_scoring_are_rejected(published, file, hospital, lines):
    nobody = json.loads(lines[0])
    nobody["subject"] = {"identifier": {"value": "M00000"}}
    less = json.loads(lines[2])
    del less["method"]
    wrong = ["{", json.dumps(less), '{"resourceType": "Patient"}']
    wrong += ['{"resourceType": "RiskAssessment"}', "[]"]
    file.write_text("\n".join([*wrong, json.dumps(nobody), lines[1]]))
    with serving(hospital) as to:
        assert send(str(published), predictions=str(file), to=to)["sent"] == 1
    assert [row["reason"] for row in rejected(file)] == [
        "malformed_json",
        "not_of_a_scoring",
        "not_a_risk_assessment",
        "not_of_a_scoring",
        "not_of_a_scoring",
        "no_identifier",
    ]


def test_by_reference_the_servers_own_records_are_named(published, file, hospital):
    for number in range(PATIENTS):
        for entry in made.patient(number)["entry"]:
            hospital.put(entry["resource"])
    with serving(hospital) as to:
        told = send(str(published), predictions=str(file), to=to, by="reference")
    assert told["sent"] == PATIENTS
    assert {one["subject"]["reference"] for one in hospital.of("RiskAssessment")} == {
        f"Patient/p{number}" for number in range(PATIENTS)
    }
    assert all(len(one["basis"]) > 5 for one in hospital.of("RiskAssessment"))


def test_a_sender_who_is_unknown_is_told_so(published, file, hospital, monkeypatch, capsys):
    hospital.token = "canary-token"
    monkeypatch.setenv("TEST_TOKEN", hospital.token)
    with serving(hospital) as to:
        command = ["send", str(published), "--predictions", str(file), "--to", to]
        assert cli.main(command) == 1
        assert "it answered 401" in capsys.readouterr().err
        assert cli.main([*command, "--token", "canary-token"]) == 2
        assert cli.main([*command, "--token", "env:TEST_TOKEN", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["sent"] == PATIENTS and "canary" not in told.out + told.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"to": "http://ehr.example.org/fhir"}, "https URL"),
        ({"by": "refrence"}, "did you mean 'reference'?"),
        ({"at_once": 0}, "--at-once is at least 1"),
        ({"predictions": "nowhere.ndjson"}, "there is no such file"),
    ],
)
def test_what_is_put_wrongly_is_told_before_anything_is_sent(
    published, file, hospital, change, told
):
    with serving(hospital) as to:
        with pytest.raises(UsageError) as caught:
            send(str(published), **{"predictions": str(file), "to": to, **change})
    assert told in str(caught.value) and not hospital.transactions


def test_scores_of_another_bundle_are_not_sent(file, hospital, tmp_path):
    other = made.publish(tmp_path / "other", seed=2)
    with serving(hospital) as to, pytest.raises(UsageError, match="of another bundle"):
        send(str(other), predictions=str(file), to=to)
    assert not hospital.transactions


def test_where_no_server_is_nothing_is_sent(published, file, hospital):
    with serving(hospital) as to, pytest.raises(SourceError, match="404"):
        send(str(published), predictions=str(file), to=f"{to}/other")
