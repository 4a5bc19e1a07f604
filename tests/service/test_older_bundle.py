"""A bundle from before reasons were kept answers every front, and only reasons are refused."""

from __future__ import annotations

from tests.service import hooked, made


def test_an_older_bundle_is_served_and_refuses_reasons_alone(tmp_path):
    kind = {"content-type": "application/fhir+json"}
    with hooked.service(tmp_path, cover=False) as client:
        for accept in ("application/fhir+json", "application/json"):
            told = {**kind, "accept": accept}
            answer = client.post("/fhir/$predict", content=made.body(3), headers=told)
            assert answer.status_code == 200, answer.text
            answer = client.post("/fhir/$predict?explain=true", content=made.body(3), headers=told)
            assert answer.status_code == 501 and "no_reasons" in answer.text
