"""The process: how it starts, swaps bundles, sends callers away, shadows, and ends."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.service import made

from clinloom import cli

PATIENCE = 120


def until(true, seconds=PATIENCE):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def heavy(count=6000) -> bytes:
    """A request that takes a while."""
    return made.body(1, observations=count)


def test_health_card_and_readiness(service):
    assert service.client.get("/health").json() == {"status": "ok"}
    ready = service.client.get("/ready").json()
    assert ready["study"] == "ward" and ready["model"] == "gradient_boosting"
    card = service.client.get("/model").json()
    assert card["mark"] == ready["mark"] and len(card["features"]) == len(made.feature_names())
    assert card["study_hash"] and card["evidence"]["auroc"] == 0.8
    assert service.client.get("/openapi.json").json()["paths"].keys() >= {
        "/predict",
        "/fhir/$predict",
        "/model",
    }
    first = json.loads(service.log.splitlines()[0])
    assert first["event"] == "serving" and first["reach"] == "this machine alone"
    assert service.metric("clinloom_request_seconds_count") > 0


def test_parameters_say_whom_and_when(service):
    subject = {"name": "subject", "valueReference": {"reference": "Patient/p2"}}
    at = {"name": "at", "valueInstant": "2025-01-01T00:00:00Z"}
    bundle = {"name": "bundle", "resource": made.patient(2)}
    whole = {"resourceType": "Parameters", "parameter": [bundle, subject, at]}
    answer = service.fhir(json.dumps(whole).encode()).json()
    assert answer["entry"][0]["resource"]["occurrenceDateTime"] == "2025-01-01T00:00:00Z"
    parts = [{"name": "resource", "resource": e["resource"]} for e in made.patient(2)["entry"]]
    again = {"resourceType": "Parameters", "parameter": [*parts, subject, at]}
    assert service.fhir(json.dumps(again).encode()).json() == answer
    subject["valueReference"]["reference"] = "Patient/p3"
    assert service.fhir(json.dumps(whole).encode()).status_code == 422


def test_who_is_not_due_is_answered_without_a_risk(service):
    given = made.patient(2)
    given["entry"] = [e for e in given["entry"] if e["resource"]["resourceType"] != "Encounter"]
    answer = service.fhir(json.dumps(given).encode()).json()
    [outcome] = [e["resource"] for e in answer["entry"]]
    assert outcome["resourceType"] == "OperationOutcome"
    assert "no prediction is due" in outcome["issue"][0]["details"]["text"]


def test_neither_java_nor_pandas_nor_spark(service):
    service.fhir(made.body(1))
    service.client.post("/predict", json={"events": [{"subject_id": 1, "code": "MEDS_BIRTH"}]})
    process = Path(f"/proc/{service.process.pid}")
    maps = (process / "maps").read_text()
    for name in ("/pandas/", "/scipy/", "libjvm", "/pydicom/"):
        assert name not in maps
    assert not (process / "task" / str(service.process.pid) / "children").read_text().split()


def test_no_module_of_theirs_is_loaded(published):
    code = """
import asyncio, json, os, sys
os.environ["CLINLOOM_SERVED"] = json.dumps({
    "bundle": sys.argv[1], "host": "127.0.0.1", "port": 1, "options": {}, "storage": {}})
from clinloom.deploy import serving
app = serving.application()
from tests.service import made
import httpx
async def ask():
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        kind = {"content-type": "application/fhir+json"}
        return await client.post("/fhir/$predict", content=made.body(1), headers=kind)
found = asyncio.run(ask())
assert found.status_code == 200, found.text
heavy = ("pandas", "pyspark", "py4j", "scipy", "pydicom", "PIL", "jinja2", "sklearn")
print([name for name in heavy if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(published)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


def test_what_runs_is_finished_when_it_is_told_to_end(published, started):
    running = started(published)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(running.fhir, heavy())
        until(lambda: running.metric("clinloom_running") >= 1 or asked.done())
        running.process.send_signal(signal.SIGTERM)
        assert asked.result().status_code == 200
    assert running.process.wait(PATIENCE) == 0


def test_too_many_at_once_are_sent_away_for_a_moment(published, started):
    running = started(published, "--at-once", "1")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(running.fhir, heavy())
        until(lambda: running.metric("clinloom_running") >= 1 or first.done())
        away = [running.fhir(made.body(2)) for _ in range(3)]
        assert running.client.get("/health").status_code == 200
        assert first.result().status_code == 200
    busy = [response for response in away if response.status_code == 503]
    assert busy and all(response.headers["retry-after"] == "1" for response in busy)
    assert running.fhir(made.body(2)).status_code == 200


def test_scoring_that_takes_too_long_is_given_up(published, started):
    running = started(published, "--timeout", "0.001")
    response = running.fhir(heavy(2000))
    assert response.status_code == 504
    assert response.json()["issue"][0]["code"] == "timeout"
    until(lambda: running.metric("clinloom_running") == 0)


def test_a_new_bundle_takes_the_others_place_and_a_broken_one_does_not(tmp_path, started):
    bundle = made.publish(tmp_path / "bundle")
    running = started(bundle, "--watch", "0.1")

    def risk():
        response = running.fhir(made.body(1))
        assert response.status_code == 200
        return response.json()["entry"][0]["resource"]["prediction"][0]["probabilityDecimal"]

    def mark():
        return running.client.get("/ready").json()["mark"]

    before, old = risk(), mark()
    made.publish(bundle, seed=2)
    until(lambda: mark() != old)
    after, new = risk(), mark()
    assert after != before

    document = json.loads((bundle / "bundle.json").read_text())
    for broken in ("{", json.dumps({**document, "format": 99}), json.dumps({"format": 2})):
        (bundle / "bundle.json").write_text(broken)
        until(lambda: "faults" in running.client.get("/ready").json())
        assert (mark(), risk()) == (new, after)
    assert any(json.loads(x)["event"] == "bundle_refused" for x in running.log.splitlines())
    spoilt = {**document, "parts": {"scorer": "scorer-spoilt.npz"}}
    data = (bundle / document["parts"]["scorer"]).read_bytes()
    (bundle / "scorer-spoilt.npz").write_bytes(data[: len(data) // 2])
    (bundle / "bundle.json").write_text(json.dumps(spoilt))
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "faults" in running.client.get("/ready").json())
    assert (mark(), risk()) == (new, after)
    made.publish(bundle, seed=1)
    until(lambda: "faults" not in running.client.get("/ready").json() and mark() != new)
    assert risk() == before


def test_a_shadow_scores_beside_and_answers_nobody(tmp_path, published, started):
    other = made.publish(tmp_path / "shadow", seed=5)
    file = tmp_path / "risks.jsonl"
    running = started(published, "--shadow", str(other), "--shadow-file", str(file))
    alone = {}
    for number in (1, 2, 3):
        answer = running.fhir(made.body(number)).json()
        alone[number] = answer["entry"][0]["resource"]["prediction"][0]["probabilityDecimal"]
    until(lambda: running.metric('clinloom_risk_count{role="shadow"}') == 3)
    until(lambda: len(file.read_text().splitlines()) == 3)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["risk"] for row in rows] == list(alone.values())
    assert all(set(row) == {"served", "shadow", "risk", "shadow_risk"} for row in rows)
    assert all(row["risk"] != row["shadow_risk"] for row in rows)
    assert running.client.get("/ready").json()["shadow"] == rows[0]["shadow"]


def test_a_token_is_asked_for(published, started, tmp_path):
    (tmp_path / "token").write_text("a secret\n")
    running = started(published, "--token", f"file:{tmp_path / 'token'}")
    assert running.client.get("/health").status_code == 200
    for headers, status in (
        ({}, 401),
        ({"authorization": "Bearer another"}, 401),
        ({"authorization": "Basic a secret"}, 401),
        ({"authorization": "Bearer a secret"}, 200),
    ):
        response = running.fhir(made.body(1), headers=headers)
        assert response.status_code == status
        assert running.client.get("/model", headers=headers).status_code == status
    assert running.fhir(b"").headers["www-authenticate"] == "Bearer"
    assert "a secret" not in running.log


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "no token is asked for"),  # noqa: S104
        (["--token", "hunter2"], "a token is named, never written"),
        (["--token", "env:CLINLOOM_NO_SUCH"], "is not set"),
        (["--max-body", "much"], "invalid size value"),
    ],
)
def test_what_is_wrong_at_the_start_is_told(published, capsys, arguments, told):
    try:
        code = cli.main(["serve", str(published), *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert told in capsys.readouterr().err


def test_what_is_no_bundle_is_told(tmp_path, capsys):
    assert cli.main(["serve", str(tmp_path)]) == 1
    assert "not a whole bundle" in capsys.readouterr().err


def test_several_workers_count_together(published, started):
    running = started(published, "--workers", "2")
    for number in range(8):
        assert running.fhir(made.body(number)).status_code == 200
    until(lambda: running.metric("clinloom_predictions_total") >= 7)
