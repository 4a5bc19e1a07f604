"""A call is answered by the bundle whose templates it was read by, whatever is taken up amid it."""

from __future__ import annotations

import json
import time

import pytest
from tests.service import hooked, made
from tests.service.hooked import WARD

from clinloom.deploy._options import Options
from clinloom.deploy.rest import application

MORE = made.STUDY.replace(
    "ICD10CM//J96.01, within", '["ICD10CM//J96.01", "ICD10CM//J96.02"], within'
)


@pytest.fixture
def study(monkeypatch):
    """Have what is published from now on ask for another code."""
    return lambda: monkeypatch.setattr(made, "STUDY", MORE)


def prefetch(client):
    templates = client.get("/cds-services").json()["services"][0]["prefetch"]
    return hooked.prefetched(templates, 3)


def test_a_bundle_taken_up_amid_a_call_does_not_answer_it(tmp_path, study):
    with hooked.service(tmp_path) as client:
        standing = client.app.state.service.standing
        before = standing.current
        given = prefetch(client)
        lacking = given.pop(hooked.key(given, "encounter"))

        def swap(path):
            if standing.current is before:
                study()
                hooked.publish(tmp_path / "bundle")
                standing.look()
            return 200, {}, json.dumps(lacking).encode()

        asked = []
        scored = client.app.state.service._traced

        def traced(served, *more):
            asked.append(served.bundle.mark)
            return scored(served, *more)

        client.app.state.service._traced = traced
        with hooked.Ehr(3) as ehr:
            ehr.trouble = swap
            call = hooked.call(3, prefetch=given, **hooked.granted(ehr))
            assert client.post(WARD, json=call).status_code == 200
        assert standing.current.bundle.mark not in asked and asked == [before.bundle.mark]


def test_a_shadow_that_asks_for_more_is_not_compared(tmp_path, study):
    place = hooked.publish(tmp_path / "bundle")
    study()
    other = hooked.publish(tmp_path / "shadow")
    client = hooked.Local(application(str(place), Options(shadow=str(other))))
    service = client.app.state.service
    assert client.post(WARD, json=hooked.call(3, prefetch=prefetch(client))).status_code == 200
    end = time.monotonic() + 60
    while service._waiting and time.monotonic() < end:
        time.sleep(0.01)
    assert b'clinloom_shadow_total{end="refused"} 1.0' in service.counts.text()
    assert b"clinloom_shadow_difference_count 0.0" in service.counts.text()
    service.close()
