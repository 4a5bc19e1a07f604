"""Traces tell counts and reasons; nothing of a patient."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.service.test_bad_requests import CANARY, canary

from clinloom.deploy import _service
from clinloom.deploy.rest import application

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(_service, "TRACER", provider.get_tracer("test"))
    return exporter


async def ask(app, body):
    transport = httpx.ASGITransport(app=app)
    headers = {"content-type": "application/fhir+json", "traceparent": PARENT}
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.post("/fhir/$predict", content=body, headers=headers)


def test_spans_tell_no_patient(published, spans):
    import asyncio

    app = application(str(published))
    good, bad = canary(), canary(Observation=lambda r: r.update(status=[CANARY]))
    assert asyncio.run(ask(app, good)).status_code == 200
    assert asyncio.run(ask(app, bad)).status_code == 400
    scored, refused = spans.get_finished_spans()
    assert scored.attributes["clinloom.predictions"] == 1
    assert scored.context.trace_id == int(PARENT.split("-")[1], 16)
    assert refused.attributes["clinloom.reason"] == "malformed_resource"
    assert refused.status.status_code is trace.StatusCode.ERROR
    for span in (scored, refused):
        assert CANARY not in span.to_json() and "Patient" not in span.to_json()
