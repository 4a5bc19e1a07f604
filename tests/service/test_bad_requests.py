"""Bad requests are refused with the right status, in the form of their front, and tell nothing."""

from __future__ import annotations

import gzip
import json
import socket
import time

import pyarrow as pa
import pytest
from tests.service.test_door import changed

CANARY = "CANARY-7731"
FHIR, JSON, PROBLEM = "application/fhir+json", "application/json", "application/problem+json"
ARROW = "application/vnd.apache.arrow.stream"
EVENT = {"subject_id": 1, "code": "A", "text_value": CANARY}


def canary(**changes) -> bytes:
    """A patient whose every name is a canary."""
    text = json.dumps(changed(0, **changes)).replace("p0", CANARY).replace("M00000", CANARY)
    return text.encode()


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as out:
        out.write_table(table)
    return sink.getvalue().to_pybytes()


FHIR_REQUESTS = {
    "nothing": (b"", 422, "no_patient"),
    "half": (canary()[:-100], 400, "malformed_json"),
    "not UTF-8": (canary().replace(b"LOINC", b"\xff"), 200, None),
    "broken UTF-8": (canary().replace(b"female", b"\xff\xfe"), 400, "malformed_json"),
    "deep": (b'{"resourceType":"Patient","x":' + b"[" * 50_000, 400, "malformed_json"),
    "deep and whole": (b"[" * 20_000 + b"]" * 20_000, 400, None),
    "a number": (b"1e999999", 400, None),
    "null": (b"null", 400, None),
    "gzip": (gzip.compress(canary()), 400, "malformed_json"),
    "a bomb": (gzip.compress(b" " * (64 << 20)), 400, "malformed_json"),
    "too large": (b" " * (3 << 20), 413, "too_large"),
    "too many": (
        b'[{"resourceType":"Patient"}' + b',{"resourceType":"P"}' * 3001 + b"]",
        413,
        None,
    ),
    "no resource": (json.dumps({"name": CANARY}).encode(), 400, "not_a_resource"),
    "a list where none is": (
        canary(Observation=lambda r: r.update(status=[CANARY])),
        400,
        "malformed_resource",
    ),
    "a huge number": (
        canary(Observation=lambda r: r["valueQuantity"].update(value=10**400)),
        400,
        "malformed_resource",
    ),
    "a unit unknown": (
        canary(Observation=lambda r: r["valueQuantity"].update(unit=CANARY)),
        422,
        "unreadable_fact",
    ),
    "a code unknown": (canary(Condition=lambda r: r.update(code={"text": CANARY})), 200, None),
    "NaN": (canary().replace(b'"value": ', b'"value": NaN, "x": ', 1), 400, None),
    "nobody's": (canary(Observation=lambda r: r.pop("subject")), 422, "no_patient"),
    "another's": (
        canary(Condition=lambda r: r.update(subject={"reference": f"Patient/{CANARY}2"})),
        (422, 200),
        None,
    ),
    "parameters unknown": (
        json.dumps({"resourceType": "Parameters", "parameter": [{"name": CANARY}]}).encode(),
        400,
        "unknown_parameter",
    ),
    "parameters empty": (b'{"resourceType":"Parameters"}', 422, "no_patient"),
}


@pytest.mark.parametrize("name", FHIR_REQUESTS)
def test_fhir_that_cannot_be_scored(service, name):
    given, status, reason = FHIR_REQUESTS[name]
    response = service.fhir(given)
    statuses = status if isinstance(status, tuple) else (status,)
    assert response.status_code in statuses, response.text
    if response.status_code != 200:
        outcome = response.json()
        assert response.headers["content-type"] == FHIR
        assert outcome["resourceType"] == "OperationOutcome"
        [issue] = outcome["issue"]
        assert issue["severity"] == "error"
        told = issue["details"]["coding"][0]["code"]
        assert reason in (None, told)
        assert CANARY not in response.text and "Traceback" not in response.text


EVENT_REQUESTS = {
    "nothing": (b"", JSON, 400, "malformed_json"),
    "no events": (b"{}", JSON, 400, "malformed_events"),
    "none": (b'{"events":[]}', JSON, 422, "no_patient"),
    "a key unknown": (json.dumps({"events": [{**EVENT, CANARY: 1}]}), JSON, 400, None),
    "a text for a number": (
        json.dumps({"events": [{**EVENT, "numeric_value": CANARY}]}),
        JSON,
        400,
        "malformed_events",
    ),
    "no zone": (
        json.dumps({"events": [{**EVENT, "time": "2020-01-01T00:00:00"}]}),
        JSON,
        400,
        None,
    ),
    "a huge number": (
        b'{"events":[{"subject_id":1,"code":"A","numeric_value":1e999}]}',
        JSON,
        400,
        None,
    ),
    "a huge subject": (b'{"events":[{"subject_id":1e30,"code":"A"}]}', JSON, 400, None),
    "NaN": (b'{"events":[{"subject_id":1,"code":"A","numeric_value":NaN}]}', JSON, 400, None),
    "a lone surrogate": (rb'{"events":[{"subject_id":1,"code":"\ud800"}]}', JSON, 400, None),
    "deep": (b'{"events":[{"x":' + b"[" * 50_000, JSON, 400, None),
    "too many": (json.dumps({"events": [EVENT] * 3001}), JSON, 413, "too_large"),
    "no type": (b"{}", "text/plain", 415, "unsupported_media"),
    "no Arrow": (b"abc", ARROW, 400, "malformed_events"),
    "empty Arrow": (b"", ARROW, 400, "malformed_events"),
    "packed Arrow": (stream(pa.table({"code": ["A" * 9999]}), "zstd"), ARROW, 400, None),
    "another column": (stream(pa.table({CANARY: [1]})), ARROW, 400, "malformed_events"),
    "a column twice": (
        stream(pa.table([pa.array([1]), pa.array([2])], names=["subject_id"] * 2)),
        ARROW,
        400,
        None,
    ),
    "zoneless Arrow": (
        stream(pa.table({"subject_id": [1], "time": pa.array([1], pa.timestamp("us"))})),
        ARROW,
        400,
        None,
    ),
    "too many in Arrow": (
        stream(pa.table({"subject_id": [1] * 3001, "code": ["A"] * 3001})),
        ARROW,
        413,
        "too_large",
    ),
}


@pytest.mark.parametrize("name", EVENT_REQUESTS)
def test_events_that_cannot_be_scored(service, name):
    given, kind, status, reason = EVENT_REQUESTS[name]
    response = service.client.post("/predict", content=given, headers={"content-type": kind})
    assert response.status_code == status, response.text
    problem = response.json()
    assert response.headers["content-type"] == PROBLEM
    assert problem["status"] == status
    assert reason in (None, problem["type"].removeprefix("urn:clinloom:"))
    assert CANARY not in response.text and "Traceback" not in response.text


@pytest.mark.parametrize("cut", range(40, 400, 24))
def test_arrow_that_is_cut_or_spoilt_is_refused(service, cut):
    whole = stream(pa.table({"subject_id": [1, 2], "code": ["A", "B"]}))
    spoilt = whole[:cut] + bytes([whole[cut] ^ 0xFF]) + whole[cut + 1 :]
    for given in (whole[:cut], spoilt):
        headers = {"content-type": ARROW}
        response = service.client.post("/predict", content=given, headers=headers)
        assert response.status_code in (200, 400, 422), response.text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"at": "noon"}, 400),
        ({"at": "2026-01-01T00:00:00"}, 400),
        ({"at": "9999-12-31T23:59:59-23:00"}, 400),
        ({"at": "2026-01-01T00:00:00+01:00"}, 200),
        ({"explain": CANARY}, 400),
        ({"subject": f"Patient/{CANARY}"}, 200),
        ({"subject": "Patient/other"}, 422),
    ],
    ids=str,
)
def test_queries(service, query, status):
    response = service.fhir(canary(), params=query)
    assert response.status_code == status, response.text
    assert status == 200 or CANARY not in response.text


def test_other_places_and_methods(service):
    for method, place, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/fhir/$predict", 405),
        ("POST", "/health", 405),
    ):
        response = service.client.request(method, place)
        assert response.status_code == status
        assert response.headers["content-type"] in (PROBLEM, FHIR)
    packed = service.fhir(gzip.compress(b"{}"), headers={"content-encoding": "gzip"})
    assert packed.status_code == 415


def test_a_body_in_chunks_is_cut_at_the_limit_too(service):
    def parts():
        for _ in range(300):
            yield b" " * 10_000

    response = service.client.post("/predict", content=parts())
    assert response.status_code == 413
    assert response.json()["most_bytes"] == 2 << 20


def test_who_sends_slowly_is_cut(service):
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port)) as slow:
        slow.settimeout(60)
        slow.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert b"408" in slow.recv(4096).split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", service.port)) as silent:
        silent.settimeout(60)
        silent.sendall(b"GET /hea")
        assert silent.recv(4096) == b""  # closed
    assert time.monotonic() - begin > 3


def test_logs_and_metrics_tell_no_patient(service):
    service.fhir(canary(), params={"explain": "true"})
    service.fhir(canary(Observation=lambda r: r.update(status=[CANARY])))
    place = f"/{CANARY}?x={CANARY}"
    service.client.get(place, headers={"user-agent": CANARY, "x-request-id": CANARY})
    metrics = service.client.get("/metrics").text
    assert 'clinloom_refusals_total{front="fhir",reason="malformed_resource"}' in metrics
    lines = [json.loads(line) for line in service.log.splitlines()]
    assert {"event", "level", "time"} <= set(lines[-1])
    assert any(line.get("reason") == "malformed_resource" for line in lines)
    for text in (service.log, metrics):
        for value in (CANARY, "Patient/", "birthDate", "2356215253270560103", "1981-", "umol"):
            assert value not in text
