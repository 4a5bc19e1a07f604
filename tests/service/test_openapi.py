"""The service keeps what its OpenAPI description says, whatever a machine thinks of to send."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from clinloom.deploy.rest import application

# What fits the description may still be refused: it says nothing that a model reads.
EXCLUDED = [positive_data_acceptance, ignored_auth]


OPERATIONS = (
    "POST /predict",
    "POST /fhir/$predict",
    "GET /health",
    "GET /ready",
    "GET /model",
    "GET /metrics",
)
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def described(published):
    schema = schemathesis.openapi.from_asgi("/openapi.json", application(str(published)))
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def test_all_operations_are_described(described):
    assert set(OPERATIONS) <= set(described)


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        (name, mode)
        for name in OPERATIONS
        for mode in MODES
        if "GET" not in name or mode is MODES[0]
    ],
)
def test_the_description_is_kept(described, operation, mode):
    @QUICK
    @given(case=described[operation].as_strategy(generation_mode=mode))
    def kept(case):
        case.call_and_validate(excluded_checks=EXCLUDED)

    kept()
