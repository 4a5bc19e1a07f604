"""What is written as FHIR and for CDS Hooks, judged by HAPI; a scoring in a real FHIR server."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from urllib.error import HTTPError

import pytest
from tests.service import assessed, hooked, made

from clinloom.deploy import sender, writeback
from clinloom.deploy.bundle import Bundle

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PATIENTS, AT_ONCE = 30, 10
UNKNOWN = 7  # a patient whom the server does not know
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
KINDS = ("Device", "RiskAssessment", "Observation", "Provenance")
FHIR = {"content-type": "application/fhir+json"}
ORDER = {"resourceType": "ServiceRequest", "status": "draft", "intent": "proposal"}
ACTION = {"description": "Measure", "resource": {**ORDER, "code": {"text": "Blood gas"}}}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A service that tells reasons and speaks CDS Hooks."""
    suggestions = [{"label": "Look again", "actions": [ACTION]}]
    with hooked.service(tmp_path_factory.mktemp("judged"), suggestions=suggestions) as found:
        yield found


@pytest.fixture(scope="module")
def bundle(clinic) -> Bundle:
    return clinic.app.state.service.standing.current.bundle


@pytest.fixture(scope="module")
def lines(bundle) -> list[str]:
    return assessed.lines(bundle, PATIENTS)


@pytest.fixture(scope="module")
def card(clinic):
    templates = clinic.get("/cds-services").json()["services"][0]["prefetch"]
    call = hooked.call(3, "patient-view", prefetch=hooked.prefetched(templates, 3))
    return clinic.post(hooked.WARD, json=call)


def test_whatever_is_written_as_fhir_is_valid(hapi, clinic, bundle, lines, card):
    written = [lines[0].encode()]
    told, model = json.loads(lines[0]), writeback.device(bundle)
    for by in writeback.BY:
        sent = writeback.transaction([writeback.named(told, by)], model, NOW)
        written.append(json.dumps(sent).encode())
    alive = made.patient(4)["entry"][:1]
    nobody = json.dumps({"resourceType": "Bundle", "entry": alive}).encode()
    given = [
        ("?explain=true", made.body(3)),
        ("", made.body(4)),
        ("", nobody),
        ("", b"{"),
        ("", b"{}"),
    ]
    answers = [
        clinic.post(f"/fhir/$predict{asked}", content=body, headers=FHIR) for asked, body in given
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 400, 400]
    written += [answer.content for answer in answers]
    [suggested] = card.json()["cards"][0]["suggestions"]
    written += [json.dumps(action["resource"]).encode() for action in suggested["actions"]]
    assert [hapi.faults(one) for one in written] == [[]] * len(written)


def test_the_validator_finds_what_is_wrong(hapi, lines):
    good = json.loads(lines[0])
    beyond = {**good["prediction"][0], "probabilityDecimal": 100.5}
    for change in ({"status": None}, {"prediction": [beyond]}, {"occurrenceDateTime": "today"}):
        bad = {key: value for key, value in {**good, **change}.items() if value is not None}
        assert hapi.faults(json.dumps(bad).encode())


def test_a_cds_hooks_answer_is_understood_whole(hapi, card):
    told = card.json()
    [shown] = told["cards"]
    for action in shown["suggestions"][0]["actions"]:
        del action["resource"]  # of FHIR, which the validator judges
    assert hapi.understood(json.dumps(told).encode()) == told
    for fault in ({"indicator": "high"}, {"sumary": "Risk"}):
        with pytest.raises(HTTPError):
            hapi.understood(json.dumps({"cards": [{**shown, **fault}]}).encode())


def kept(hapi):
    """What the server keeps of scorings, with its versions, by type and id."""
    return {(kind, one["id"]): one for kind in KINDS for one in hapi.of(kind)}


def counts(found):
    return Counter(kind for kind, _ in found)


def known(hapi):
    """Tell the server of the patients whom it is to know."""
    people = [made.patient(n)["entry"][0]["resource"] for n in range(PATIENTS) if n != UNKNOWN]
    request = {"method": "POST", "url": "Patient"}
    told = [
        {"resource": {k: v for k, v in person.items() if k != "id"}, "request": request}
        for person in people
    ]
    hapi.post({"resourceType": "Bundle", "type": "transaction", "entry": told})


def test_a_scoring_reaches_a_real_server_once(hapi, bundle, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "FIRST", 0.1)
    known(hapi)
    file, notes = tmp_path / "risk.ndjson", []
    file.write_text("".join(lines))

    def note(text):
        notes.append(text)
        if text.startswith(f"{AT_ONCE} lines"):
            hapi.open(False)
        elif "trying again" in text:
            hapi.open(True)

    def send(given, **more):
        told = sender.send(str(bundle.place), predictions=str(given), to=hapi.url, **more)
        return told["sent"], told["rejected"]

    assert send(file, at_once=AT_ONCE, note=note) == (len(lines) - 1, 1)
    assert any("no answer; trying again" in text for text in notes)
    found = kept(hapi)
    each = dict.fromkeys(KINDS[1:], len(lines) - 1)
    assert counts(found) == {"Device": 1, **each}
    risks = [json.loads(line)["prediction"][0]["probabilityDecimal"] for line in lines]
    del risks[UNKNOWN]
    told = [one["valueQuantity"]["value"] for key, one in found.items() if key[0] == "Observation"]
    assert sorted(told) == sorted(risks)
    again = tmp_path / "again.ndjson"
    again.write_text("".join(lines))
    assert send(again) == (len(lines) - 1, 1) and kept(hapi) == found
    changed = json.loads(lines[0])
    changed["prediction"][0]["probabilityDecimal"] = 0.123
    file.write_text("".join([json.dumps(changed) + "\n", *lines[1:]]))
    assert send(file) == (len(lines) - 1, 1)
    later = kept(hapi)
    assert counts(later) == {"Device": 1, **each, "Provenance": len(lines)}
    assert sum(later[key] == told for key, told in found.items()) == len(found) - 2
