"""Who may ask for cards and tell of them; what became of cards is kept without a patient."""

from __future__ import annotations

import json

import pytest
from tests.service import hooked
from tests.service.hooked import SECRET, WARD, bearer, problem
from tests.service.test_auth import EC, jwk


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with hooked.service(tmp_path_factory.mktemp("cds")) as found:
        yield found


@pytest.fixture(scope="module")
def templates(client):
    return client.get("/cds-services").json()["services"][0]["prefetch"]


@pytest.fixture
def trusted(tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk(EC, "ec")]}))
    url = "https://cds.example.org/clinic"
    clients = [{"issuer": "https://ehr.example.org", "keys": str(tmp_path / "keys.json")}]
    more = {"anonymous": False, "url": url, "feedback": str(tmp_path / "kept")}
    with hooked.service(tmp_path, clients=clients, **more) as client:
        yield client


def test_the_services_own_token_guards_other_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("CDS_TOKEN", "s" * 32)
    with hooked.service(tmp_path, token="env:CDS_TOKEN") as client:
        assert client.get("/cds-services").status_code == 200
        for path in ("/model", "/cds-services-of-others"):
            problem(client.get(path), 401, "unauthorized")


def test_every_endpoint_asks_for_a_token_of_its_own(trusted, templates):
    paths = {"/cds-services": None, WARD: hooked.call(3), f"{WARD}/feedback": {"feedback": []}}
    for path, body in paths.items():
        ask = (lambda h, p=path: trusted.get(p, headers=h)) if body is None else (
            lambda h, p=path, b=body: trusted.post(p, json=b, headers=h)
        )  # fmt: skip
        answer = ask({})
        problem(answer, 401, "denied")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        for other in set(paths) - {path}:
            problem(ask(bearer(other)), 401, "denied")
        problem(ask(bearer(path, exp=5)), 401, "denied")
        good = bearer(path)
        assert ask(good).status_code != 401
        assert "shown before" in problem(ask(good), 401, "denied")["detail"]


AT = "2026-11-28T12:00:00Z"


@pytest.fixture
def shown(trusted, templates):
    """A client that was shown a card, and that card."""
    given = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    answer = trusted.post(WARD, json=given, headers=bearer(WARD))
    return trusted, answer.json()["cards"][0]


def say(client, *outcomes, path=f"{WARD}/feedback", **claims):
    return client.post(path, json={"feedback": list(outcomes)}, headers=bearer(path, **claims))


def kept(tmp_path, folder):
    found = sorted((tmp_path / "kept" / folder).glob("*"))
    return [json.loads(line) for file in found for line in file.read_text().splitlines()]


def test_feedback_is_kept_without_a_patient(shown, tmp_path):
    client, card = shown
    offered = {"code": "known", "system": "urn:clinloom:override-reason"}
    reason = {"reason": offered, "userComment": SECRET}
    told = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": AT}
    answer = say(client, {**told, "overrideReason": reason}, told)
    assert answer.status_code == 200 and answer.json() == {}
    first, second = kept(tmp_path, "feedback")
    assert (first["card"], first["outcome"]) == (card["uuid"], "overridden")
    assert first["commented"] is True
    assert first["reason"] == offered
    assert first["at"] == "2026-11-28T12:00:00+00:00" and "reason" not in second
    [seen] = kept(tmp_path, "cards")
    assert seen["card"] == card["uuid"] and seen["indicator"] == "warning"
    assert (seen["service"], seen["hook"]) == ("ward", "patient-view")
    text = json.dumps([first, second, seen])
    assert all(word not in text for word in (SECRET, "p3", "M00003", "Risk"))
    assert say(client, told).status_code == 200  # a card may be acted on again
    assert len(kept(tmp_path, "feedback")) == 3


def test_an_accepted_suggestion_is_kept(tmp_path, templates):
    hooks = {"feedback": str(tmp_path / "kept"), "suggestions": [{"label": "Look again"}]}
    given = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    with hooked.service(tmp_path, **hooks) as client:
        [card] = client.post(WARD, json=given).json()["cards"]
        mine = card["suggestions"][0]["uuid"]
        told = {"card": card["uuid"], "outcome": "accepted", "outcomeTimestamp": AT}
        path = f"{WARD}/feedback"
        good = {"feedback": [{**told, "acceptedSuggestions": [{"id": mine}]}]}
        assert client.post(path, json=good).status_code == 200
        other = {"feedback": [{**told, "acceptedSuggestions": [{"id": card["uuid"]}]}]}
        problem(client.post(path, json=other), 404, "unknown_card")
        problem(client.post(path, json={"feedback": [told]}), 400, "bad_request")
    [line] = kept(tmp_path, "feedback")
    assert line["suggestions"] == [mine] and line["outcome"] == "accepted"


UNKNOWN = "4e0a3a1e-3283-4575-ab82-028d55fe2719"


def test_feedback_on_an_unknown_card_is_refused_whole(shown, tmp_path):
    client, card = shown
    told = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": AT}
    for name in (UNKNOWN, "", "../cards/x", card["uuid"].upper() + "x", "0"):
        problem(say(client, told, {**told, "card": name}), 404, "unknown_card")
    assert not (tmp_path / "kept" / "feedback").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": SECRET},
        {"outcome": None},
        {"outcomeTimestamp": SECRET},
        {"outcomeTimestamp": "2026-11-28T12:00:00"},
        {"card": 5},
        {"acceptedSuggestions": [{"id": UNKNOWN}]},
        {"overrideReason": {"reason": {"code": f"{SECRET} was here"}}},
        {"overrideReason": {"reason": {"code": ""}}},
        {"overrideReason": {"reason": {"code": "x" * 201}}},
        {"overrideReason": SECRET},
    ],
    ids=str,
)
def test_malformed_feedback_is_400(shown, tmp_path, change):
    client, card = shown
    told = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": AT, **change}
    answer = say(client, told)
    problem(answer, 400, "bad_request")
    assert SECRET not in answer.text and not (tmp_path / "kept" / "feedback").exists()


@pytest.mark.parametrize("body", [{}, {"feedback": []}, {"feedback": {}}, [], {"feedback": [5]}])
def test_feedback_of_another_shape_is_400(trusted, body):
    path = f"{WARD}/feedback"
    problem(trusted.post(path, json=body, headers=bearer(path)), 400, "bad_request")


def test_without_an_address_there_is_no_feedback(client):
    problem(client.post(f"{WARD}/feedback", json={"feedback": []}), 404, "not_found")


def test_a_card_that_cannot_be_kept_is_shown_all_the_same(tmp_path, templates, monkeypatch):
    from clinloom.deploy import _feedback

    def full(*_, **__):
        raise OSError("no space")

    given = hooked.call(3, prefetch=hooked.prefetched(templates, 3))
    with hooked.service(tmp_path, feedback=str(tmp_path / "kept")) as client:
        monkeypatch.setattr(_feedback.Kept, "shown", full)
        assert len(client.post(WARD, json=given).json()["cards"]) == 1
