"""CDS Hooks 2.0.1: discovery, prefetch, cards, feedback, and every way in which a call is none."""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
import subprocess
import sys

import pytest
from tests.service import hooked, made
from tests.service.hooked import SECRET, WARD, problem

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door
from clinloom.deploy.rest import application
from clinloom.errors import UsageError

HOOKS = ["patient-view", "order-select", "order-sign", "encounter-discharge"]
PATIENT = "{{context.patientId}}"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with hooked.service(tmp_path_factory.mktemp("cds"), hooks=HOOKS) as found:
        yield found


@pytest.fixture(scope="module")
def templates(client):
    return client.get("/cds-services").json()["services"][0]["prefetch"]


def test_discovery_names_a_service_for_each_hook_and_what_it_needs(client):
    answer = client.get("/cds-services")
    assert answer.status_code == 200 and list(answer.json()) == ["services"]
    services = answer.json()["services"]
    assert [service["hook"] for service in services] == HOOKS
    icd, labs = "http://hl7.org/fhir/sid/icd-10-cm", sorted(made.LABS)
    for service in services:
        assert {"hook", "description", "id", "title", "prefetch"} == set(service)
        assert service["id"] == "ward" and service["title"].startswith("Respiratory failure")
        digested = service["prefetch"].items()
        assert {key.partition("-")[0]: template for key, template in digested} == {
            "patient": f"Patient/{PATIENT}",
            "condition": f"Condition?patient={PATIENT}&code="
            + ",".join(f"{icd}|{code}" for code in made.DIAGNOSES),
            "encounter": f"Encounter?patient={PATIENT}&class=IMP",
            "observation": f"Observation?patient={PATIENT}&code="
            + ",".join(f"http://loinc.org|{code}" for code in labs),
        }


INDICATORS = ("info", "warning", "critical")


def faults(card, *, ours=True):
    """Where a card breaks a rule of the specification; ``ours``: with what it leaves open."""
    out = []
    if not isinstance(card.get("summary"), str) or not 0 < len(card["summary"]) < 140:
        out.append("summary")
    if card.get("indicator") not in INDICATORS:
        out.append("indicator")
    source = card.get("source")
    if not isinstance(source, dict) or not source.get("label"):
        out.append("source.label")
    elif "url" in source and not re.match(r"https?://", source["url"]):
        out.append("source.url")
    if ours and not re.fullmatch(r"[0-9a-f-]{36}", card.get("uuid", "")):
        out.append("uuid")
    if "suggestions" in card and card.get("selectionBehavior") not in ("at-most-one", "any"):
        out.append("selectionBehavior")
    if "selectionBehavior" in card and "suggestions" not in card:
        out.append("selectionBehavior without suggestions")
    recommended = 0
    for suggestion in card.get("suggestions", ()):
        recommended += bool(suggestion.get("isRecommended"))
        if not suggestion.get("label") or (ours and not suggestion.get("uuid")):
            out.append("suggestion")
        for action in suggestion.get("actions", ()):
            if action.get("type") not in ("create", "update", "delete"):
                out.append("action.type")
            if not action.get("description"):
                out.append("action.description")
            if action.get("type") != "delete" and "resourceType" not in action.get("resource", {}):
                out.append("action.resource")
    if recommended > 1 and card.get("selectionBehavior") != "any":
        out.append("several recommended")
    for reason in card.get("overrideReasons", ()):
        if not (reason.get("code") and reason.get("system") and reason.get("display")):
            out.append("overrideReason")
    for link in card.get("links", ()):
        told = link.get("label") and link.get("url")
        if not told or link.get("type") not in ("absolute", "smart"):
            out.append("link")
        if "appContext" in link and link["type"] != "smart":
            out.append("appContext")
    return out


def test_the_official_cards_break_no_rule_and_broken_ones_do(data):
    cards = json.loads((data / "conformance/cds_hooks/valid_cards.json").read_text())
    assert cards and [faults(card, ours=False) for card in cards] == [[]] * len(cards)
    good = {"uuid": "0" * 36, "summary": "x", "indicator": "info", "source": {"label": "l"}}
    assert faults(good) == []
    bad = {
        "summary": {"summary": "x" * 140},
        "indicator": {"indicator": "high"},
        "source.label": {"source": {}},
        "uuid": {"uuid": ""},
        "selectionBehavior": {"suggestions": [{"label": "l", "uuid": "u"}]},
        "selectionBehavior without suggestions": {"selectionBehavior": "any"},
        "suggestion": {"suggestions": [{"label": "l"}], "selectionBehavior": "any"},
        "overrideReason": {"overrideReasons": [{"code": "c", "system": "s"}]},
        "link": {"links": [{"label": "l", "url": "u", "type": "other"}]},
    }
    for fault, change in bad.items():
        assert fault in faults({**good, **change})


def risk_of(client, number):
    """What the door says of a made patient, by its whole record."""
    service = client.app.state.service
    door = Door(Bundle.load(str(service.standing.current.bundle.place)))
    answer = door.score(door.fhir(made.body(number)))
    rows = answer.predictions.to_pylist()
    return max(rows, key=lambda row: row["prediction_time"])["predicted_boolean_probability"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("number", [3, 4])
def test_a_complete_prefetch_is_scored_as_the_whole_record_is(client, templates, hook, number):
    given = hooked.call(number, hook, prefetch=hooked.prefetched(templates, number))
    answer = client.post(WARD, json=given)
    assert answer.status_code == 200 and list(answer.json()) == ["cards"]
    [card] = answer.json()["cards"]
    assert faults(card) == [] and card["indicator"] == "warning"
    expected = 100 * risk_of(client, number)
    assert card["summary"].startswith(f"Risk {expected:.1f}%: Respiratory failure")
    assert f"**Risk {expected:.1f}%** at 2024-" in card["detail"]


def test_a_card_tells_its_reasons_and_how_far_to_believe_it(client, templates):
    given = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    [card] = client.post(WARD, json=given).json()["cards"]
    detail = card["detail"]
    assert detail.count("- raises it: ") + detail.count("- lowers it: ") == 5
    assert "AUROC 0.840 (0.800\N{EN DASH}0.880)" in detail
    assert "calibration slope 0.97 (0.90\N{EN DASH}1.05): risks can be taken about" in detail
    assert "learned from 1,234 patients, tested on 530 others" in detail
    assert "- The test rows hold fewer than 100 outcomes" in detail
    assert "not causes" in detail
    assert "Not read of this patient's record: entered\\_in\\_error (8)" in detail
    told = (
        r"(raises|lowers) it: (Creatinine|Heart rate|Glucose), [\w ]+: \d+(\.\d+)? (mg/dL|/min)\n"
    )
    assert re.search(told, detail), detail
    assert card["source"] == {"label": "Clinloom"}
    assert [reason["code"] for reason in card["overrideReasons"]] == [
        "known",
        "not-applicable",
        "disagree",
    ]
    again = client.post(WARD, json=given).json()["cards"][0]
    assert again["uuid"] != card["uuid"] and again["detail"] == detail


def test_an_older_bundle_and_one_without_evidence_say_so(tmp_path, templates):
    given = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    with hooked.service(tmp_path, cover=False, evidence={}) as client:
        [card] = client.post(WARD, json=given).json()["cards"]
    assert "trained before reasons were kept" in card["detail"]
    assert card["detail"].count("not told: too few test patients") == 2
    assert "of how many patients it was learned is not told" in card["detail"]
    assert faults(card) == []


@pytest.mark.parametrize(
    ("hooks", "indicator"),
    [
        ({"warning": 1.0}, None),
        ({"warning": 1.0, "silent": False}, "info"),
        ({"warning": 0.0}, "warning"),
        ({"warning": 0.0, "critical": 0.0}, "critical"),
        ({"warning": 0.0, "critical": 1.0}, "warning"),
        ({"warning": None}, "threshold"),
    ],
)
def test_thresholds_of_the_study_make_the_indicator(tmp_path, templates, hooks, indicator):
    with hooked.service(tmp_path, **hooks) as client:
        for number in (3, 4, 5):
            given = hooked.call(number, prefetch=hooked.prefetched(templates, number))
            cards = client.post(WARD, json=given).json()["cards"]
            expected = indicator
            if indicator == "threshold":  # the model's own
                expected = "warning" if risk_of(client, number) >= 0.4 else None
            assert [card["indicator"] for card in cards] == ([expected] if expected else [])


def test_words_and_suggestions_of_the_study_are_in_the_card(tmp_path, templates):
    actions = [
        {
            "description": "Order a blood gas",
            "resource": {"resourceType": "ServiceRequest", "status": "draft", "intent": "proposal"},
        }
    ]
    hooks = {
        "source": "Ward 3",
        "about": "https://ward.example/model",
        "reasons": 0,
        "overrides": [],
        "suggestions": [
            {"label": "Blood gas", "recommended": True, "actions": actions},
            {"label": "Look again"},
        ],
    }
    given = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    with hooked.service(tmp_path, **hooks) as client:
        [card] = client.post(WARD, json=given).json()["cards"]
        [again] = client.post(WARD, json=given).json()["cards"]
    assert faults(card) == []
    assert card["source"] == {"label": "Ward 3", "url": "https://ward.example/model"}
    assert "overrideReasons" not in card and "raises it" not in card["detail"]
    first, second = card["suggestions"]
    assert (first["label"], first["isRecommended"]) == ("Blood gas", True)
    assert first["actions"][0]["type"] == "create"
    assert first["actions"][0]["resource"]["subject"] == {"reference": "Patient/p3"}
    assert "actions" not in second and not second["isRecommended"]
    told = [one for made in (card, again) for one in (made, *made["suggestions"])]
    assert len({one["uuid"] for one in told}) == 6


def test_a_long_title_is_cut_to_the_length_of_a_summary():
    from clinloom.deploy._cards import summary

    assert summary("a\n b", 0.5) == "Risk 50.0%: a b"
    for length in (100, 127, 128, 129, 500):
        text = summary("x" * length, 0.123)
        assert len(text) < 140 and text.startswith("Risk 12.3%: xx")


def test_what_a_source_calls_a_code_is_no_markdown():
    from clinloom.deploy._cards import escaped

    assert escaped("a *b* [c](http://x) <d> `e`\n|f|") == (
        r"a \*b\* \[c\](http://x) \<d\> \`e\` \|f\|"
    )


def test_a_risk_of_what_would_have_happened_by_now_has_no_card(tmp_path, templates):
    given = hooked.prefetched(templates, 3)
    with hooked.service(tmp_path, lapsed="silent") as client:
        answer = client.post(WARD, json=hooked.call(3, prefetch=given))
        assert answer.status_code == 200 and answer.json() == {"cards": []}
        for days, cards in ((3, 1), (30, 1), (32, 0)):  # the study: 24 h, and 30 days from there
            admitted = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
            [encounter] = given[hooked.key(given, "encounter")]["entry"]
            encounter["resource"]["period"] = {"start": admitted.isoformat()}
            answer = client.post(WARD, json=hooked.call(3, prefetch=given))
            assert len(answer.json()["cards"]) == cards, answer.text


def test_a_patient_who_is_in_no_moment_of_the_study_has_no_card(client, templates):
    given = hooked.prefetched(templates, 3)
    given["patient"]["birthDate"] = "2015-01-01"  # the study is of adults
    answer = client.post(WARD, json=hooked.call(3, prefetch=given))
    assert answer.status_code == 200 and answer.json() == {"cards": []}


# Calls that are none.


def changed(change):
    given = hooked.call(3)
    change(given)
    return given


MALFORMED = {
    "no hook": lambda g: g.pop("hook"),
    "another hook": lambda g: g.update(hook=SECRET),
    "a hook that is no text": lambda g: g.update(hook=5),
    "no hookInstance": lambda g: g.pop("hookInstance"),
    "an empty hookInstance": lambda g: g.update(hookInstance=""),
    "no context": lambda g: g.pop("context"),
    "a context that is a list": lambda g: g.update(context=[SECRET]),
    "no user": lambda g: g["context"].pop("userId"),
    "no patient": lambda g: g["context"].pop("patientId"),
    "a patient that is no id": lambda g: g["context"].update(patientId=f"p3?{SECRET}"),
    "a patient that leads elsewhere": lambda g: g["context"].update(patientId="../../admin"),
    "a patient that is a number": lambda g: g["context"].update(patientId=3),
    "an order-sign without orders": lambda g: g.update(hook="order-sign"),
    "an order-select without selections": lambda g: g.update(hook="order-select"),
    "a discharge without encounter": lambda g: g.update(hook="encounter-discharge"),
    "a prefetch that is a list": lambda g: g.update(prefetch=[SECRET]),
    "an authorization without server": lambda g: g.update(
        fhirAuthorization={"access_token": "x", "token_type": "Bearer", "expires_in": 1,
                           "scope": "", "subject": ""}
    ),
    "an authorization without token": lambda g: g.update(
        fhirServer="https://x.example", fhirAuthorization={"token_type": "Bearer"}
    ),
    "a token with a line break": lambda g: g.update(
        fhirServer="https://x.example",
        fhirAuthorization={"access_token": "x\r\nHost: y", "token_type": "Bearer",
                           "expires_in": 1, "scope": "", "subject": ""},
    ),
    "a token for another patient": lambda g: g.update(
        fhirServer="https://x.example",
        fhirAuthorization={"access_token": "x", "token_type": "Bearer", "expires_in": 1,
                           "scope": "", "subject": "", "patient": SECRET},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_call_is_400_and_tells_nothing_of_it(client, what):
    answer = client.post(WARD, json=changed(MALFORMED[what]))
    problem(answer, 400, "bad_request")
    assert SECRET not in answer.text and "admin" not in answer.text


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"5", b"null", b"\xff", b"{" * 5000, b'{"a":'])
def test_a_body_that_is_no_call_is_400(client, body):
    answer = client.post(WARD, content=body, headers={"content-type": "application/json"})
    problem(answer, 400, "bad_request")


def test_another_service_method_or_type(client):
    problem(client.post("/cds-services/other", json=hooked.call(3)), 404, "not_found")
    problem(client.get(WARD), 405, "method_not_allowed")
    answer = client.post(WARD, content=b"{}", headers={"content-type": "text/plain"})
    problem(answer, 415, "unsupported_media")


def test_facts_that_cannot_be_scored_are_an_error_and_no_silence(client, templates):
    given = hooked.prefetched(templates, 3)
    bad = copy.deepcopy(given)
    for entry in bad[hooked.key(bad, "observation")]["entry"]:
        if "valueQuantity" in entry["resource"]:
            entry["resource"]["valueQuantity"]["unit"] = "furlong"
    problem(client.post(WARD, json=hooked.call(3, prefetch=bad)), 422, "unreadable_fact")
    key = hooked.key(templates, "observation")
    mixed = {**given, key: hooked.prefetched(templates, 4)[key]}
    problem(client.post(WARD, json=hooked.call(3, prefetch=mixed)), 422, "other_patient")


def test_a_prefetch_that_was_not_asked_for_is_passed_over(client, templates):
    given = hooked.prefetched(templates, 3)
    answer = client.post(WARD, json=hooked.call(3, prefetch=given))
    more = {**given, "other": hooked.prefetched(templates, 4)["patient"], "n": 5}
    again = client.post(WARD, json=hooked.call(3, prefetch=more, extension={"x": 1}))
    details = [a.json()["cards"][0]["detail"] for a in (answer, again)]
    assert details[0] == details[1]


@pytest.mark.parametrize(
    "name",
    ["order_select_hook_request", "order_sign_hook_request", "encounter_discharge_hook_request"],
)
def test_the_official_requests_are_understood(client, data, name):
    given = json.loads((data / f"conformance/cds_hooks/{name}.json").read_text())
    answer = client.post(WARD, json=given)
    problem(answer, 412, "not_prefetched")  # its server is not agreed
    with hooked.Ehr(3) as ehr:
        ehr.token = "SAMPLE_TOKEN"  # as the request says
        given |= {"fhirServer": ehr.url}
        given["context"]["patientId"] = "p3"
        answer = client.post(WARD, json=given)
    assert answer.status_code == 200, answer.text
    assert [faults(card) for card in answer.json()["cards"]] == [[]]


@pytest.mark.parametrize("name", ["encounter_start", "appointment_book", "order_dispatch"])
def test_official_requests_of_other_hooks_are_refused(client, data, name):
    given = json.loads((data / f"conformance/cds_hooks/{name}_hook_request.json").read_text())
    assert "order-sign" in problem(client.post(WARD, json=given), 400, "bad_request")["detail"]


# Who may ask.


def test_nobody_may_ask_unless_the_study_says_who(tmp_path):
    with pytest.raises(UsageError, match="nobody may ask"):
        with hooked.service(tmp_path, anonymous=False):
            pass


def test_without_a_token_only_this_machine_may_ask(tmp_path):
    with hooked.service(tmp_path, client=("10.1.2.3", 5)) as client:
        problem(client.get("/cds-services"), 401, "denied")


# Browsers.


def test_a_browser_of_an_agreed_origin_may_ask_and_no_other(tmp_path, templates):
    ours, other = "https://ehr.example.org", "https://evil.example"
    with hooked.service(tmp_path, origins=[ours]) as client:
        for path in ("/cds-services", WARD):
            asks = {"Origin": ours, "Access-Control-Request-Method": "POST"}
            answer = client.options(path, headers=asks)
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == ours
            assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
            answer = client.options(path, headers={**asks, "Origin": other})
            assert "access-control-allow-origin" not in answer.headers
        answer = client.get("/cds-services", headers={"Origin": ours})
        assert answer.headers["access-control-allow-origin"] == ours
        assert answer.headers["vary"] == "Origin"
        for headers in ({}, {"Origin": other}, {"Origin": "null"}):
            answer = client.get("/cds-services", headers=headers)
            assert "access-control-allow-origin" not in answer.headers
            assert "access-control-allow-credentials" not in answer.headers


def test_without_origins_no_browser_may_ask(client):
    problem(client.options("/cds-services"), 405, "method_not_allowed")
    assert "vary" not in client.get("/cds-services").headers


def test_a_study_without_hooks_offers_none(tmp_path):
    place = made.publish(tmp_path / "bundle")
    client = hooked.Local(application(str(place)))
    problem(client.get("/cds-services"), 404, "not_found")


def test_what_only_reports_need_is_not_loaded():
    code = """
import sys, clinloom.deploy.cds_hooks
heavy = ("pandas", "pyspark", "py4j", "scipy", "pydicom", "PIL", "jinja2", "sklearn")
sys.exit([name for name in heavy if name in sys.modules] or 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
