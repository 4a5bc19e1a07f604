"""What an EHR prefetched, what is fetched from it, and what is lacking: 412, never a guess."""

from __future__ import annotations

import json
import time

import pytest
from tests.service import hooked, made
from tests.service.hooked import WARD, bearer, problem
from tests.service.test_auth import EC, jwk

KINDS = ("patient", "observation", "condition", "encounter")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with hooked.service(tmp_path_factory.mktemp("cds")) as found:
        yield found


@pytest.fixture(scope="module")
def templates(client):
    return client.get("/cds-services").json()["services"][0]["prefetch"]


@pytest.mark.parametrize("page", [1000, 3])
@pytest.mark.parametrize("kept", [(), ("patient",), ("observation", "encounter")])
def test_what_is_lacking_is_fetched_page_by_page(client, templates, page, kept):
    prefetch = hooked.prefetched(templates, 3)
    whole = client.post(WARD, json=hooked.call(3, prefetch=prefetch)).json()["cards"][0]
    given = {hooked.key(templates, kind): prefetch[hooked.key(templates, kind)] for kind in kept}
    with hooked.Ehr(3, 4, page=page) as ehr:
        answer = client.post(WARD, json=hooked.call(3, prefetch=given, **hooked.granted(ehr)))
        asked = {path.split("?")[0].removeprefix("/fhir/") for path in ehr.asked}
    assert answer.status_code == 200, answer.text
    assert answer.json()["cards"][0]["detail"] == whole["detail"]
    kinds = {"patient": "Patient/p3", **{k: k.title() for k in KINDS if k != "patient"}}
    assert asked == {kind for key, kind in kinds.items() if key not in kept}


def test_a_prefetch_in_pages_is_fetched_to_its_end(client, templates):
    with hooked.Ehr(3, page=5) as ehr:
        given = hooked.prefetched(templates, 3)
        first = ehr.found("Observation", {"patient": ["p3"], "code": [",".join(made.LABS)]})
        given[hooked.key(given, "observation")] = first
        answer = client.post(WARD, json=hooked.call(3, prefetch=given, **hooked.granted(ehr)))
        assert answer.status_code == 200 and len(ehr.asked) == 7
    whole = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    expected = client.post(WARD, json=whole).json()["cards"][0]["detail"]
    assert answer.json()["cards"][0]["detail"] == expected
    alone = client.post(WARD, json=hooked.call(3, prefetch=given))
    lacking = problem(alone, 412, "not_prefetched")["lacking"]
    assert lacking == [hooked.key(templates, "observation")]


OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "timeout"}]}
HINT = {"resourceType": "OperationOutcome", "issue": [{"severity": "information", "code": "x"}]}


def searchset(*resources):
    return {"resourceType": "Bundle", "entry": [{"resource": resource} for resource in resources]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value", [..., OUTCOME, searchset(OUTCOME), {}, [], 5, "x", {"resourceType": "Observation"}],
    ids=["absent", "outcome", "outcome within", "empty", "list", "number", "text", "other type"],
)  # fmt: skip
def test_what_is_neither_prefetched_nor_to_be_fetched_is_412(client, templates, kind, value):
    given, key = hooked.prefetched(templates, 3), hooked.key(templates, kind)
    given[key] = value
    if value is ...:
        del given[key]
    told = problem(client.post(WARD, json=hooked.call(3, prefetch=given)), 412, "not_prefetched")
    assert told["lacking"] == [key]
    assert "p3" not in json.dumps(told)


def test_no_prefetch_at_all_lacks_everything(client, templates):
    for more in ({}, {"prefetch": None}, {"prefetch": {}}):
        told = problem(client.post(WARD, json=hooked.call(3, **more)), 412, "not_prefetched")
        assert set(told["lacking"]) == set(templates)


def test_null_says_that_a_search_found_nothing_and_is_asked_where_it_can_be(client, templates):
    given, key = hooked.prefetched(templates, 3), hooked.key(templates, "condition")
    with_none = client.post(WARD, json=hooked.call(3, prefetch={**given, key: searchset()}))
    with_null = client.post(WARD, json=hooked.call(3, prefetch={**given, key: None}))
    details = [a.json()["cards"][0]["detail"] for a in (with_none, with_null)]
    assert details[0] == details[1]
    with hooked.Ehr(3) as ehr:
        call = hooked.call(3, prefetch={**given, key: None}, **hooked.granted(ehr))
        assert client.post(WARD, json=call).status_code == 200
        assert [path.split("?")[0] for path in ehr.asked] == ["/fhir/Condition"]
    told = client.post(WARD, json=hooked.call(3, prefetch={**given, "patient": None}))
    assert problem(told, 412, "not_prefetched")["lacking"] == ["patient"]


def test_a_hint_among_what_was_found_is_passed_over(client, templates):
    given, key = hooked.prefetched(templates, 3), hooked.key(templates, "condition")
    given[key] = searchset(*[e["resource"] for e in given[key]["entry"]], HINT)
    assert client.post(WARD, json=hooked.call(3, prefetch=given)).status_code == 200


def paged(url):
    link = [{"relation": "next", "url": url}]
    return 200, {}, json.dumps({**searchset(), "link": link}).encode()


TROUBLES = {
    "an error": lambda ehr: (500, {}, b"{}"),
    "a redirect": lambda ehr: (302, {"Location": f"{ehr.url}/Patient/p3"}, b""),
    "no JSON": lambda ehr: (200, {}, b"<html>"),
    "an outcome": lambda ehr: (200, {}, json.dumps(OUTCOME).encode()),
    "a page elsewhere": lambda ehr: paged("http://127.0.0.1:1/fhir/Observation?x=1"),
    "a page above": lambda ehr: paged(f"{ehr.url}/../admin"),
    "a page beside": lambda ehr: paged(ehr.url + "evil/Observation"),
    "the same page for ever": lambda ehr: paged(f"{ehr.url}/Observation?again"),
    "too many bytes": lambda ehr: (200, {}, b" " * (21 << 20)),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_a_server_in_trouble_is_412_and_leads_nowhere_else(client, templates, what):
    given = hooked.prefetched(templates, 3)
    del given[hooked.key(given, "observation")]
    with hooked.Ehr(3) as ehr:
        ehr.trouble = lambda path: TROUBLES[what](ehr)
        answer = client.post(WARD, json=hooked.call(3, prefetch=given, **hooked.granted(ehr)))
        lacking = problem(answer, 412, "not_prefetched")["lacking"]
        assert lacking == [hooked.key(templates, "observation")]
        assert {path.split("?")[0] for path in ehr.asked} == {"/fhir/Observation"}
        assert len(ehr.asked) <= 2 and "secret" not in answer.text


def test_pages_are_bounded(client, templates, monkeypatch):
    from clinloom.deploy import _prefetch

    monkeypatch.setattr(_prefetch, "PAGES", 3)
    given = hooked.prefetched(templates, 3)
    del given[hooked.key(given, "observation")]
    with hooked.Ehr(3, page=5) as ehr:
        answer = client.post(WARD, json=hooked.call(3, prefetch=given, **hooked.granted(ehr)))
        assert problem(answer, 412, "not_prefetched") and len(ehr.asked) == 3


def test_a_slow_server_is_given_up(tmp_path, templates):
    given = hooked.prefetched(templates, 3)
    del given[hooked.key(given, "observation")]
    with hooked.service(tmp_path, seconds=0.3) as client, hooked.Ehr(3) as ehr:
        ehr.trouble = lambda path: time.sleep(1)
        begun = time.monotonic()
        answer = client.post(WARD, json=hooked.call(3, prefetch=given, **hooked.granted(ehr)))
        assert problem(answer, 412, "not_prefetched") and time.monotonic() - begun < 0.9


@pytest.mark.parametrize(
    "server",
    ["https://example/r4", "http://10.0.0.1/fhir", "http://localhost.evil.example/fhir",
     "http://127.0.0.1@evil.example/fhir", "file:///etc/passwd", "", "x"],
)  # fmt: skip
def test_a_server_that_was_not_agreed_is_not_asked(client, templates, server):
    given = hooked.prefetched(templates, 3)
    del given[hooked.key(given, "observation")]
    answer = client.post(WARD, json=hooked.call(3, prefetch=given, fhirServer=server))
    assert "no agreed FHIR server" in problem(answer, 412, "not_prefetched")["detail"]


def test_who_the_server_tells_of_is_who_was_asked_for(client):
    with hooked.Ehr(3, 4) as ehr:
        ehr.trouble = lambda path: (
            (200, {}, json.dumps(ehr.found("Patient/p4", {})).encode()) if "/p3" in path else None
        )
        answer = client.post(WARD, json=hooked.call(3, **hooked.granted(ehr)))
    assert problem(answer, 422, "other_patient")


def test_a_client_is_fetched_from_its_own_servers_alone(tmp_path, templates):
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk(EC, "ec")]}))
    with hooked.Ehr(3) as ehr, hooked.Ehr(3) as other:
        entry = {"issuer": "https://ehr.example.org", "keys": str(tmp_path / "keys.json")}
        clients = [{**entry, "servers": [ehr.url]}]
        more = {"anonymous": False, "url": "https://cds.example.org/clinic", "clients": clients}
        with hooked.service(tmp_path, **more) as client:
            call = hooked.call(3, **hooked.granted(ehr))
            assert client.post(WARD, json=call, headers=bearer(WARD)).status_code == 200
            call = hooked.call(3, **hooked.granted(other))
            answer = client.post(WARD, json=call, headers=bearer(WARD))
            assert problem(answer, 412, "not_prefetched") and other.asked == []
