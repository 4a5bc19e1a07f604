"""Who is asked for before anything is read, what a slow server holds up, and what is whole."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import threading
from pathlib import Path

import httpx
import pytest
from tests.service import hooked, made
from tests.service.hooked import WARD, bearer, problem
from tests.service.test_auth import EC, jwk
from tests.service.test_cds_swaps import MORE

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door, Refusal
from clinloom.deploy.rest import application
from clinloom.errors import UsageError

PATIENCE = 20  # seconds
ORIGIN = "https://ehr.example.org"
AT = "2026-11-28T12:00:00Z"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    more = {"origins": [ORIGIN], "feedback": str(tmp_path_factory.mktemp("kept"))}
    with hooked.service(tmp_path_factory.mktemp("cds"), **more) as found:
        yield found


@pytest.fixture(scope="module")
def templates(client):
    return client.get("/cds-services").json()["services"][0]["prefetch"]


def trusting(folder, *servers):
    """What a study says that trusts one client."""
    (folder / "keys.json").write_text(json.dumps({"keys": [jwk(EC, "ec")]}))
    entry = {"issuer": "https://ehr.example.org", "keys": str(folder / "keys.json")}
    clients = [{**entry, "servers": list(servers)}]
    return {"anonymous": False, "url": "https://cds.example.org/clinic", "clients": clients}


def test_who_bears_no_token_is_refused_before_the_body_is_read(tmp_path):
    with hooked.service(tmp_path, **trusting(tmp_path)) as client:
        sent = []

        async def never():
            await asyncio.sleep(PATIENCE)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": WARD, "query_string": b""}
        scope |= {"headers": [(b"content-type", b"application/json")], "client": ("10.0.0.9", 1)}
        asyncio.run(asyncio.wait_for(client.app(scope, never, send), PATIENCE / 4))
        assert sent[0]["status"] == 401


def test_slow_servers_hold_up_no_token_and_no_complete_call(tmp_path):
    slow, asked = threading.Event(), []
    with hooked.Ehr(3) as ehr:
        ehr.trouble = lambda path: asked.append(path) or slow.wait(PATIENCE) and None
        with hooked.service(tmp_path, **trusting(tmp_path, ehr.url), seconds=60) as client:
            count = min(32, (os.cpu_count() or 1) + 4)  # threads that asyncio itself would have

            async def ask():
                transport = httpx.ASGITransport(app=client.app)
                async with httpx.AsyncClient(transport=transport, base_url="http://cds") as http:
                    call = hooked.call(3, **hooked.granted(ehr))
                    held = [
                        asyncio.create_task(http.post(WARD, json=call, headers=bearer(WARD)))
                        for _ in range(count)
                    ]
                    while len(asked) < count:
                        await asyncio.sleep(0.01)
                    path = "/cds-services"
                    answer = await asyncio.wait_for(
                        http.get(path, headers=bearer(path)), PATIENCE / 2
                    )
                    wanted = answer.json()["services"][0]["prefetch"]
                    whole = hooked.call(3, prefetch=hooked.prefetched(wanted, 3))
                    card = await asyncio.wait_for(
                        http.post(WARD, json=whole, headers=bearer(WARD)), PATIENCE / 2
                    )
                    slow.set()
                    return [answer, card, *await asyncio.gather(*held)]

            answers = asyncio.run(asyncio.wait_for(ask(), 2 * PATIENCE))
    assert {answer.status_code for answer in answers} == {200}


def test_a_prefetch_by_another_bundles_templates_is_recognised(tmp_path, monkeypatch):
    with hooked.service(tmp_path) as client:
        before = client.get("/cds-services").json()["services"][0]["prefetch"]
        monkeypatch.setattr(made, "STUDY", MORE)
        hooked.publish(tmp_path / "bundle")
        standing = client.app.state.service.standing
        standing.look()
        call = hooked.call(3, prefetch=hooked.prefetched(before, 3))
        told = problem(client.post(WARD, json=call), 412, "not_prefetched")
        after = client.get("/cds-services").json()["services"][0]["prefetch"]
        assert told["lacking"] == [hooked.key(after, "condition")] == [*after.keys() - before]
        assert "explainer" in vars(standing.current)  # made before it stood


def short(given, kind, by=1):
    """A prefetch of which a search tells of more than it holds."""
    given = copy.deepcopy(given)
    page = given[hooked.key(given, kind)]
    page["total"] = len(page["entry"]) + by
    return given


def test_a_search_with_fewer_entries_than_its_total_is_not_whole(client, templates):
    given = hooked.prefetched(templates, 3)
    whole = client.post(WARD, json=hooked.call(3, prefetch=short(given, "observation", 0)))
    told = client.post(WARD, json=hooked.call(3, prefetch=short(given, "observation")))
    lacking = problem(told, 412, "not_prefetched")["lacking"]
    assert lacking == [hooked.key(templates, "observation")]
    with hooked.Ehr(3, page=25) as ehr:
        call = hooked.call(3, prefetch=short(given, "observation"), **hooked.granted(ehr))
        asked = client.post(WARD, json=call)
        assert len(ehr.asked) == 2
        ehr.trouble = lambda path: (
            (200, {}, json.dumps({"resourceType": "Bundle", "total": 1}).encode())
        )
        told = client.post(WARD, json=call)
    details = [answer.json()["cards"][0]["detail"] for answer in (whole, asked)]
    assert details[0] == details[1]
    problem(told, 412, "not_prefetched")


def test_what_a_search_includes_is_none_of_its_total(client, templates):
    given, key = hooked.prefetched(templates, 3), hooked.key(templates, "condition")
    medication = {"resourceType": "Medication", "id": "m"}
    given[key]["entry"].append({"resource": medication, "search": {"mode": "include"}})
    given[key]["total"] = len(given[key]["entry"]) - 1
    assert client.post(WARD, json=hooked.call(3, prefetch=given)).status_code == 200
    given[key]["total"] += 1
    problem(client.post(WARD, json=hooked.call(3, prefetch=given)), 412, "not_prefetched")


def test_a_page_of_a_search_is_not_scored_as_the_record(published):
    door = Door(Bundle.load(str(published)))
    entries = made.patient(3)["entry"]
    first = {"resourceType": "Bundle", "type": "searchset", "total": len(entries)}
    last = {**first, "entry": entries[20:]}
    first |= {"entry": entries[:20], "link": [{"relation": "next", "url": "https://x/2"}]}
    whole = door.score(door.fhir(made.body(3)))
    both = door.score(door.fhir([first, last]))
    assert both.predictions.equals(whole.predictions)
    del first["total"], last["total"]
    assert door.score(door.fhir([first, last])).predictions.equals(whole.predictions)
    for given in ([first], first, {**last, "total": len(entries)}):
        with pytest.raises(Refusal) as refused:
            door.fhir(json.dumps(given).encode())
        assert refused.value.reason == "incomplete_search"


def test_a_browser_can_read_a_refusal(client):
    headers = {"content-type": "application/json", "origin": ORIGIN}
    for path, status in ((WARD, 400), ("/cds-services/other", 404)):
        answer = client.post(path, content=b"{}", headers=headers)
        assert answer.status_code == status and answer.headers["vary"] == "Origin"
        assert answer.headers["access-control-allow-origin"] == ORIGIN
    answer = client.post(WARD, content=b"{}", headers={**headers, "origin": "https://evil.example"})
    assert answer.status_code == 400 and "access-control-allow-origin" not in answer.headers


def test_a_reason_that_was_not_offered_is_another(client, templates):
    call = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    [card] = client.post(WARD, json=call).json()["cards"]
    told = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": AT}
    codes = [{"code": "Mustermann-1950"}, {"code": "known"}, card["overrideReasons"][1]]
    lines = [{**told, "overrideReason": {"reason": reason}} for reason in codes]
    assert client.post(f"{WARD}/feedback", json={"feedback": lines}).status_code == 200
    place = client.app.state.service.standing.current.bundle.resolved.deploy.cds_hooks.feedback
    [file] = (Path(place) / "feedback").glob("*")
    kept = [json.loads(line)["reason"]["code"] for line in file.read_text().splitlines()]
    assert kept == ["other", "other", card["overrideReasons"][1]["code"]]


WHOSE = {"ServiceRequest": "subject", "NutritionOrder": "patient", "Task": "for"}


def test_a_suggestion_says_whose_it_is_where_its_type_does(tmp_path, templates):
    resources = [{"resourceType": kind} for kind in (*WHOSE, "Appointment")]
    actions = [{"description": "d", "resource": resource} for resource in resources]
    with hooked.service(tmp_path, suggestions=[{"label": "Do", "actions": actions}]) as client:
        call = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
        [card] = client.post(WARD, json=call).json()["cards"]
    made_ = [action["resource"] for action in card["suggestions"][0]["actions"]]
    whose = {"reference": "Patient/p3"}
    for (kind, element), resource in zip(WHOSE.items(), made_, strict=False):
        assert resource == {"resourceType": kind, element: whose}
    assert made_[-1]["participant"] == [{"actor": whose, "status": "needs-action"}]


def test_what_is_critical_also_warns(tmp_path):
    place = hooked.publish(tmp_path / "bundle", warning=None)
    standing = application(str(place)).state.service.standing
    for critical, mended in ((0.3, False), (0.5, True)):  # the model's threshold is 0.4
        hooked.publish(place, warning=None, critical=critical)
        standing.look()
        assert ("lies below the model's threshold" in str(standing.faults)) is not mended
        if not mended:
            with pytest.raises(UsageError, match="critical"):
                application(str(place))
