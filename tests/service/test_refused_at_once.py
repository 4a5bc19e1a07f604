"""What is refused before anything is fetched or scored: methods, and calls that would only wait."""

from __future__ import annotations

from tests.service import hooked
from tests.service.hooked import WARD, problem

from clinloom.deploy import cds_hooks


def test_a_method_is_told_and_calls_beyond_the_places_are_sent_away(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        full = type("Full", (cds_hooks.asyncio.Semaphore,), {"locked": lambda self: True})
        patched.setattr(cds_hooks.asyncio, "Semaphore", full)
        with hooked.service(tmp_path) as client:
            answer = client.get("/predict")
            problem(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == "POST"
            away = client.post(WARD, json=hooked.call(3, prefetch={}))
            problem(away, 503, "busy")
            assert away.headers["retry-after"] == "1"
